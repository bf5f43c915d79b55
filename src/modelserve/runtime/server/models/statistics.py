"""What a model has done so far, in numbers that cost a request next to nothing to keep."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

#: Upper bounds of the duration's buckets, in seconds.
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BUCKETS_NS = tuple(int(bound * 1e9) for bound in BUCKETS_S)
#: Upper bounds of the buckets for requests that shared a run.
JOINED_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)


class Timing(NamedTuple):
    """Where one request's time went, on the monotonic clock in nanoseconds.

    Attributes:
        sent_ns: When it was given to the pool.
        began_ns: When the run began that answered it.
        computed_ns: When that run had its first answer.
        joined: How many requests that run answered.
    """

    sent_ns: int
    began_ns: int
    computed_ns: int
    joined: int

    @property
    def queue_ns(self) -> int:
        return self.began_ns - self.sent_ns

    @property
    def compute_ns(self) -> int:
        return self.computed_ns - self.began_ns


class Durations:
    """A histogram of durations: counts by bucket, the last for those above all bounds, and their sum."""

    __slots__ = ("buckets", "sum_ns")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.sum_ns = 0

    def add(self, elapsed_ns: int) -> None:
        self.buckets[bisect_left(_BUCKETS_NS, elapsed_ns)] += 1
        self.sum_ns += elapsed_ns


@dataclass(slots=True)
class Statistics:
    """Counts since the model was loaded. Written from the event loop only.

    Attributes:
        succeeded, failed: Requests that went to the workers.
        failed_ns: What those took that failed, from the whole request to the error in hand.
        rows: Rows of those that succeeded.
        codes: Failures by the error's code.
        whole: Durations of those that succeeded, from the whole request to the answer in hand.
        queue, compute: The parts of it until a run began, and of that run until it had its first answer.
        joined: Successes by the requests that shared their run; the last is for those above all bounds.
    """

    succeeded: int = 0
    failed: int = 0
    failed_ns: int = 0
    rows: int = 0
    last_ms: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    whole: Durations = field(default_factory=Durations)
    queue: Durations = field(default_factory=Durations)
    compute: Durations = field(default_factory=Durations)
    joined: list[int] = field(default_factory=lambda: [0] * (len(JOINED_BOUNDS) + 1))
    joined_sum: int = 0

    def success(self, rows: int, elapsed_ns: int, timing: Timing) -> None:
        self.succeeded += 1
        self.rows += rows
        self.whole.add(elapsed_ns)
        self.queue.add(timing.began_ns - timing.sent_ns)
        self.compute.add(timing.computed_ns - timing.began_ns)
        self.joined[bisect_left(JOINED_BOUNDS, timing.joined)] += 1
        self.joined_sum += timing.joined
        self.last_ms = int(time.time() * 1000)

    def failure(self, code: str, elapsed_ns: int) -> None:
        self.failed += 1
        self.failed_ns += elapsed_ns
        self.codes[code] = self.codes.get(code, 0) + 1
        self.last_ms = int(time.time() * 1000)
