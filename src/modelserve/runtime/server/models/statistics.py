"""What a model has done so far, in numbers that cost a request next to nothing to keep."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field

#: Upper bounds of the duration's buckets, in seconds.
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BUCKETS_NS = tuple(int(bound * 1e9) for bound in BUCKETS_S)


@dataclass(slots=True)
class Statistics:
    """Counts since the model was loaded. Written from the event loop only.

    Attributes:
        succeeded, failed: Requests that went to the workers.
        succeeded_ns, failed_ns: What those took, from the whole request to the answer in hand.
        rows: Rows of those that succeeded.
        codes: Failures by the error's code.
        buckets: Successes by duration; the last is for those above all bounds.
    """

    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    rows: int = 0
    last_ms: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))

    def success(self, rows: int, elapsed_ns: int) -> None:
        self.succeeded += 1
        self.succeeded_ns += elapsed_ns
        self.rows += rows
        self.buckets[bisect_left(_BUCKETS_NS, elapsed_ns)] += 1

    def failure(self, code: str, elapsed_ns: int) -> None:
        self.failed += 1
        self.failed_ns += elapsed_ns
        self.codes[code] = self.codes.get(code, 0) + 1
        self.last_ms = int(time.time() * 1000)
