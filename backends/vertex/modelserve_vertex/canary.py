"""An update's first share of the traffic: held for a while, and taken back when the new model does worse.

    deploy with its share ──► look, look, look ... ──► all of the traffic
                                │ no replica, or more refusals than the old model's
                                └──► StartError

Whoever called gives the traffic back then, and removes the new model.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Callable, Mapping

from modelserve.errors import StartError
from modelserve_vertex import counted
from modelserve_vertex.counted import Count
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.recipe import Recipe
from modelserve_vertex.resources import Resources

_LOOKS = 20
#: By how much the share of refusals may be above the old model's, and how many standard deviations of chance beyond
#: that: three, because among twenty looks one or another would find two by chance alone.
_MARGIN = 0.01
_DEVIATIONS = 3.0


class Canary:
    """One update's first share."""

    def __init__(
        self, resources: Resources, recipe: Recipe, options: VertexOptions, tell: Callable[[str], None]
    ) -> None:
        self._resources = resources
        self._recipe = recipe
        self._options = options
        self._tell = tell
        self._since = dt.datetime.now(dt.UTC)

    def prepare(self) -> None:
        """Read the metrics once, so that a right that is missing is told before anything is deployed.

        Raises:
            AccessDeniedError: they may not be read.
        """
        self._counted()

    def hold(self) -> None:
        """Watch the new model while it has its first share.

        Raises:
            StartError: it lost its replicas, or refused more than the old one did.
        """
        share, hold_s = self._options.canary_percent, self._options.canary_hold_s
        self._tell(f"{share} % of the traffic goes to the new model for {hold_s:g} s")
        self._since = dt.datetime.now(dt.UTC)
        end = time.monotonic() + hold_s
        while (left_s := end - time.monotonic()) > 0:
            time.sleep(min(left_s, hold_s / _LOOKS))
            self._check_replicas()
            self._check_answers()

    def _check_replicas(self) -> None:
        found = self._resources.endpoint(self._recipe.endpoint)
        deployed = [one for one in found.deployed_models if one.id == self._recipe.deployed_id] if found else []
        if not deployed or not deployed[0].status.available_replica_count:
            raise StartError(
                f"The new model of {self._recipe.name!r} lost its replicas while it had "
                f"{self._options.canary_percent} % of the traffic; the old one has all of it again. Its log says why."
            )

    def _check_answers(self) -> None:
        found = dict(self._counted())
        new = found.pop(self._recipe.deployed_id, Count())
        old = Count(sum(one.answers for one in found.values()), sum(one.failed for one in found.values()))
        if is_worse(new, old):
            raise StartError(
                f"The new model of {self._recipe.name!r} refused {new.failed} of {new.answers} requests, the old one "
                f"{old.failed} of {old.answers}; the old one has all of the traffic again. Its log says why."
            )

    def _counted(self) -> Mapping[str, Count]:
        return counted.answers(self._resources.google, self._recipe.endpoint, self._since)


def is_worse(new: Count, old: Count) -> bool:
    """Whether the new model refused more than the old one's share and chance explain.

    A one-sided test of two proportions with their pooled variance (NIST/SEMATECH e-Handbook of Statistical Methods,
    7.3.3). Where one of the two has not answered yet there is nothing to compare, and neither is worse.
    """
    if not (new.answers and old.answers):
        return False
    share = (new.failed + old.failed) / (new.answers + old.answers)
    chance = math.sqrt(share * (1 - share) * (1 / new.answers + 1 / old.answers))
    return new.failed_share - old.failed_share > _MARGIN + _DEVIATIONS * chance
