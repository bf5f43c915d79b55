"""How fast one caller may ask: a bucket that fills steadily and is emptied by requests."""

from __future__ import annotations

import time

_MOST_CALLERS = 10_000


class Rates:
    """One bucket for each caller, as deep as a second of its rate (and at least one request)."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, caller: str, rate_per_s: float, now: float | None = None) -> float:
        """Take one request; 0 where it may come now, otherwise the seconds after which it may."""
        now = time.monotonic() if now is None else now
        depth = max(1.0, rate_per_s)
        level, at = self._buckets.get(caller, (depth, now))
        level = min(depth, level + (now - at) * rate_per_s)
        if level < 1.0:
            return (1.0 - level) / rate_per_s
        if len(self._buckets) >= _MOST_CALLERS:
            self._buckets.clear()  # whoever gains by it gains one second's requests
        self._buckets[caller] = (level - 1.0, now)
        return 0.0
