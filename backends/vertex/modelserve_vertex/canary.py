"""An update's first share of the traffic: held for a while, and taken back when the new model does not keep up."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelserve.errors import StartError
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.recipe import Recipe
from modelserve_vertex.resources import Resources

_LOOKS = 20


def hold(resources: Resources, recipe: Recipe, options: VertexOptions, tell: Callable[[str], None]) -> None:
    """Watch the new model's replicas while it has its first share.

    Raises:
        StartError: it lost its replicas meanwhile; whoever called gives the traffic back.
    """
    tell(f"{options.canary_percent} % of the traffic goes to the new model for {options.canary_hold_s:g} s")
    end = time.monotonic() + options.canary_hold_s
    while (left_s := end - time.monotonic()) > 0:
        time.sleep(min(left_s, options.canary_hold_s / _LOOKS))
        found = resources.endpoint(recipe.endpoint)
        deployed = [one for one in found.deployed_models if one.id == recipe.deployed_id] if found else []
        if not deployed or not deployed[0].status.available_replica_count:
            raise StartError(
                f"The new model of {recipe.name!r} lost its replicas while it had {options.canary_percent} % of the "
                "traffic; the old one has all of it again. Its log says why."
            )
