"""Which waiting requests run together: those that fit, up to the size that was measured to pay.

    waiting: a(1) b(1) c(3) d(1, other shape)    ──►    [a b c]  [d]

Joining pays while a row in a larger run is clearly cheaper than in a smaller one. For some models it never does
(memory bandwidth binds), so the curve is measured at warm-up and kept current by every run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from modelserve import wire
from modelserve.runtime.channel import ALONE, Submission

_MAX_ROWS = 256
# More rows must make a row cheaper than this part of what it costs, or joining only adds waiting.
_GAIN = 0.9
_TRIES = 5
_EXPLORE_EVERY = 64
_LOYALTY = 0.9
_SLICING_TRIES = 2


class Waiting(NamedTuple):
    """A request that was taken but has not run."""

    submission: Submission
    layout: wire.Layout
    key: object
    rows: int


class Curve:
    """Seconds that a run takes by its rows, in steps of powers of two."""

    def __init__(self, seconds: Sequence[float] = ()) -> None:
        self._seconds: list[float] = list(seconds)
        self._join_rows = self._find()
        self._runs = 0

    @property
    def seconds(self) -> list[float]:
        """For 1, 2, 4, ... rows."""
        return list(self._seconds)

    @property
    def row_ns(self) -> int:
        """What a row costs in the largest run that was measured; at least 1 once something was."""
        if not self._seconds:
            return 0
        return max(1, int(self._seconds[-1] * 1e9) >> (len(self._seconds) - 1))

    @property
    def best_rows(self) -> int:
        """Rows of a run in which a row costs nearly as little as it ever does."""
        return self._join_rows

    @property
    def best_row_ns(self) -> float:
        """What a row costs in such a run; infinite before several sizes were measured."""
        if len(self._seconds) < 2:
            return math.inf
        return self._seconds[self._join_rows.bit_length() - 1] * 1e9 / self._join_rows

    def join_rows(self) -> int:
        """Rows that are worth joining; now and then twice as many, to see whether that pays by now."""
        self._runs += 1
        explore = self._runs % _EXPLORE_EVERY == 0 and self._join_rows < _MAX_ROWS
        return self._join_rows * 2 if explore else self._join_rows

    def note(self, rows: int, seconds: float) -> None:
        """Keep the curve current with one run."""
        step = (rows - 1).bit_length()
        if rows != 1 << step or step > len(self._seconds):
            return
        if step == len(self._seconds):
            self._seconds.append(seconds)
        else:
            self._seconds[step] = usual(self._seconds[step], seconds)
        self._join_rows = self._find()

    def measure(self, run: Callable[[int], None], budget_s: float) -> None:
        """Fill the curve by running; `run(rows)` runs the model once."""
        end = time.perf_counter() + budget_s
        rows, in_vain = 1, 0
        # One step that brings nothing may be a busy moment of the machine; two in a row are the model's.
        while rows <= _MAX_ROWS and in_vain < 2:
            best = _timed(run, rows)
            for _ in range(_TRIES - 1):
                if time.perf_counter() + best > end:
                    break
                best = min(best, _timed(run, rows))
            self._seconds.append(best)
            in_vain = in_vain + 1 if self._find() <= rows // 2 else 0
            if time.perf_counter() + 2 * best > end:
                break
            rows *= 2
        self._join_rows = self._find()

    def _find(self) -> int:
        """The smallest number of rows at which a row costs nearly as little as it ever does."""
        each = [seconds / (1 << step) for step, seconds in enumerate(self._seconds)]
        return next((1 << step for step, cost in enumerate(each) if cost * _GAIN <= min(each)), 1)


def usual(before: float, now: float, *, rise: float = 1.125) -> float:
    """What something usually takes: follows the lower half, for the longer ones were interrupted by other processes.

    Args:
        rise: The largest factor by which one longer time may raise it; the nearer to 1, the more this is the least.
    """
    return before + (now - before) / 4 if now < before else min(now, before * rise)


def usual_ns(before_ns: int, elapsed_ns: int, *, rise: float = 1.125) -> int:
    """The same in whole nanoseconds; 0 stands for nothing known yet."""
    return math.ceil(usual(before_ns, elapsed_ns, rise=rise)) if before_ns else elapsed_ns


class Slicing:
    """Whether a large request is cheaper whole or in slices: measured for its size, and the cheaper one kept.

    A run over many rows writes intermediate values that no longer fit into the processor's caches; for other models it
    makes no difference. Not tried for ever, because the last bits of an answer may depend on it.
    """

    def __init__(self) -> None:
        self._tried: dict[tuple[int, bool], list[float]] = {}

    def pays(self, rows: int, promised_ns: float) -> bool:
        """Whether to slice a request of so many rows; `promised_ns` is what the curve says of a row in a slice."""
        sliced, whole = self._times(rows, sliced=True), self._times(rows, sliced=False)
        if len(whole) <= len(sliced) < _SLICING_TRIES:
            return False
        if len(sliced) < _SLICING_TRIES:
            return promised_ns < _GAIN * min(whole)
        return min(sliced) < min(whole)

    def note(self, rows: int, elapsed_ns: int, *, sliced: bool) -> None:
        """One way took so long."""
        times = self._times(rows, sliced=sliced)
        if len(times) < _SLICING_TRIES:
            times.append(elapsed_ns / rows)

    def _times(self, rows: int, *, sliced: bool) -> list[float]:
        """By row, of requests of about this size."""
        return self._tried.setdefault((rows.bit_length(), sliced), [])


class Patience:
    """How long a free worker may wait for company: within the budget, for no more rows than came together lately.

    A request that finds the worker at rest is never held back; one that comes within the budget after a run is, because
    whoever was answered by that run is likely to ask again.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_ns = int(budget_s * 1e9)
        self._usual = 1.0
        self._turns = 0

    def until_ns(self, arrived_ns: int, rested_since_ns: int) -> int:
        """Until when to wait for more; `arrived_ns` itself where nothing is to be held back."""
        return arrived_ns + self._budget_ns if arrived_ns - rested_since_ns < self._budget_ns else arrived_ns

    def rows(self, join_rows: int) -> int:
        """Rows that are worth waiting for; now and then all that pay, to see whether they would come."""
        self._turns += 1
        return join_rows if self._turns % _EXPLORE_EVERY == 0 else min(join_rows, int(self._usual))

    def note(self, rows: int) -> None:
        """So many came together."""
        self._usual = max(float(rows), _LOYALTY * self._usual)


def _timed(run: Callable[[int], None], rows: int) -> float:
    start = time.perf_counter()
    run(rows)
    return time.perf_counter() - start


def describe(submission: Submission, header: bytes) -> Waiting:
    """What is needed to decide what runs together.

    Raises:
        WireError: the header is no request's.
    """
    layout = wire.request_layout(header)
    key = None if submission.flags & ALONE or layout.is_alone else _key(layout)
    return Waiting(submission, layout, key, layout.rows)


def groups(waiting: Sequence[Waiting], join_rows: int) -> Iterator[list[Waiting]]:
    """Requests to run together, in order of arrival; each alone where `join_rows` is 1 or nothing fits."""
    if join_rows <= 1 or len(waiting) == 1:
        yield from ([one] for one in waiting)
        return
    open_groups: dict[object, list[Waiting]] = {}
    rows_in: dict[object, int] = {}
    for one in waiting:
        if one.key is None:
            yield [one]
            continue
        group = open_groups.setdefault(one.key, [])
        if group and rows_in[one.key] + one.rows > join_rows:
            yield group
            group = open_groups[one.key] = []
        rows_in[one.key] = one.rows + (rows_in[one.key] if group else 0)
        group.append(one)
    yield from open_groups.values()


@lru_cache(maxsize=512)
def _key(layout: wire.Layout) -> object:
    """Equal for requests whose tensors differ in nothing but their rows; None where that cannot be."""
    rows = layout.rows
    if not all(field.shape and field.shape[0] == rows and field.data is None for field in layout.fields):
        return None
    return tuple((field.name, field.datatype, field.shape[1:]) for field in layout.fields), layout.outputs
