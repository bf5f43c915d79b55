"""What models did in the last minutes, step by step, for people who look at a page."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from modelserve.runtime.server.models.served import ServedModel

STEP_S = 2.0
#: Steps that are kept: five minutes.
STEPS = 150


class Step(NamedTuple):
    """One step of one model; no latency where nothing was answered."""

    requests_per_s: float
    latency_ms: float | None


class History:
    """Looks at the models' counts at each step of the clock.

    Args:
        served: The models there are.
    """

    def __init__(self, served: Callable[[], Sequence[ServedModel]]) -> None:
        self._served = served
        self._steps: dict[ServedModel, deque[Step]] = {}
        self._before: dict[ServedModel, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on, in the running loop, until `stop`."""
        self.look()
        self._timer = asyncio.get_running_loop().call_later(STEP_S, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Take one step."""
        models = self._served()
        for served in models:
            counts = served.statistics
            now = counts.succeeded, counts.whole.sum_ns
            count, sum_ns = (new - old for new, old in zip(now, self._before.get(served, now), strict=True))
            self._before[served] = now
            step = Step(count / STEP_S, sum_ns / count / 1e6 if count else None)
            self._steps.setdefault(served, deque(maxlen=STEPS)).append(step)
        for gone in self._steps.keys() - set(models):
            del self._steps[gone], self._before[gone]

    def of(self, served: ServedModel) -> list[Step]:
        """A model's steps, oldest first."""
        return list(self._steps.get(served, ()))
