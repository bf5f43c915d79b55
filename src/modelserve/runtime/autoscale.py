"""How many workers the load asks for: up at once, down only when it has been low for a while."""

from __future__ import annotations

import math

_SHRINK_AFTER_S = 5.0
_REST_AFTER_S = 15.0
_SMOOTHING = 0.5


class Autoscaler:
    """Aims at `target_inflight` requests under way per worker, between `minimum` and `maximum` workers."""

    def __init__(self, minimum: int, maximum: int, target_inflight: float) -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.target_inflight = target_inflight
        self._smoothed = 0.0
        self._low_since: float | None = None

    def decide(self, workers: int, inflight: int, now: float) -> int:
        """The number of workers to have, given what there is; `now` in seconds of any steady clock."""
        self._smoothed += _SMOOTHING * (inflight - self._smoothed)
        load = max(self._smoothed, inflight) if inflight > self._smoothed else self._smoothed
        needed = math.ceil(load / self.target_inflight - 1e-3) if load > 0.05 else 0
        needed = min(max(needed, self.minimum), self.maximum)
        if needed > workers:
            self._low_since = None
            # At most double, so that one burst does not fill the machine.
            return min(needed, max(workers * 2, 1))
        if needed == workers:
            self._low_since = None
            return workers
        if self._low_since is None:
            self._low_since = now
        patience_s = _REST_AFTER_S if needed == 0 else _SHRINK_AFTER_S
        if now - self._low_since < patience_s:
            return workers
        self._low_since = now
        return max(needed, workers - 1)
