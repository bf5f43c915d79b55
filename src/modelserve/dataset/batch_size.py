"""How many rows a request is to have: measured on the first rows, before the run.

A row in a larger request costs less, converting and sending it included, until its values no longer fit into a
processor's caches; then it costs more. The smallest size that is nearly as quick as the quickest is taken, among those
that keep the workers at it for so long that what the application adds to a request hardly counts.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from modelserve.dataset.asking import Asked, Asker
from modelserve.dataset.feed import Feed
from modelserve.dataset.pieces import Boundaries
from modelserve.dataset.plan import Plan
from modelserve.dataset.predictor import Predictor, under_way
from modelserve.errors import InputError, ModelServeError

#: Rows of a request where nothing could be measured.
DEFAULT_ROWS = 64
#: What a part holds, of inputs or of outputs, whichever are more.
PART_BYTES = 64 << 20
_LEAST_BYTES = 16 << 10
_MOST_BYTES = 4 << 20
_BUDGET_S = 0.2
# The quickest of several tries counts: the others were interrupted.
_TRIES = 3
_NEARLY = 0.9
_WORTH_A_REQUEST_S = 2e-3
_IN_VAIN = 2
_HEADER_BYTES = 4096
_SEEN_ROWS = 8
_SAMPLE_ROWS = 8192


def found_boundaries(plan: Plan, predictor: Predictor, batch_rows: int | None) -> Boundaries:
    """Where batches and parts end: as the model or the caller wants it, or as it is quickest.

    Raises:
        InputError: nobody says how many rows belong together, and it is no matter of speed.
    """
    sample = plan.source.head(plan.wanted, _SAMPLE_ROWS)
    rows = _fixed_rows(plan, predictor, batch_rows)
    if rows is None:
        asker = Asker(predictor, plan.outputs, plan.timeout_s)
        rows = measure(predictor, asker, plan.feed, sample, parallel=under_way(predictor))
    return boundaries(rows, max(input_bytes(plan.feed, sample), plan.shape.row_bytes))


def _fixed_rows(plan: Plan, predictor: Predictor, batch_rows: int | None) -> int | None:
    """Rows of a batch where that is no matter of speed."""
    first = plan.feed.signature.inputs[0].shape[:1]
    if first and isinstance(first[0], int):
        return first[0]
    if not predictor.rows_independent and batch_rows is None:
        raise InputError(
            "This model's answers depend on all rows of a request together. Say how many rows belong together with "
            "batch_rows=."
        )
    return batch_rows


def measure(predictor: Predictor, asker: Asker, feed: Feed, sample: Any, *, parallel: int) -> int:
    """Rows of a request, found by trying sizes on the rows of `sample`, a record batch.

    Args:
        parallel: How many requests are under way at once.
    """
    row_bytes = input_bytes(feed, sample)
    most = _bounded(min(sample.num_rows, max(1, _MOST_BYTES // row_bytes)), predictor, row_bytes)
    least = min(most, 1 << max(0, (_LEAST_BYTES // row_bytes).bit_length() - 1))
    rates = dict[int, float]()
    # A row of the sample that cannot be answered ends this; the run itself will find out which.
    with contextlib.suppress(ModelServeError):
        _climb(rates, asker, feed, sample, least, most, parallel)
    return _chosen(rates) or min(most, DEFAULT_ROWS)


def input_bytes(feed: Feed, sample: Any) -> int:
    """Bytes that a row takes as tensors, by the first rows; at least 1."""
    groups = feed.tensors_of(sample.slice(0, _SEEN_ROWS), {}).groups
    if not groups:
        return 1
    return max(1, sum(array.nbytes for array in groups[0].tensors.values()) // groups[0].rows)


def boundaries(batch_rows: int, row_bytes: int, *, part_bytes: int | None = None) -> Boundaries:
    """Where batches and parts end, for rows that take or give so many bytes."""
    batches = max(1, (part_bytes or PART_BYTES) // max(1, row_bytes * batch_rows))
    return Boundaries(batch_rows, batch_rows * batches)


def _chosen(rates: Mapping[int, float]) -> int:
    """The size to take, by the rows per second of each; 0 where none was measured."""
    worth = {rows: rate for rows, rate in rates.items() if rows / rate >= _WORTH_A_REQUEST_S}
    if not worth:
        return max(rates, default=0)
    best = max(worth.values())
    return next(rows for rows, rate in sorted(worth.items()) if rate >= _NEARLY * best)


def _climb(
    rates: dict[int, float], asker: Asker, feed: Feed, sample: Any, least: int, most: int, parallel: int
) -> None:
    """Take four times the rows until it no longer pays, or the time is over."""
    end = time.perf_counter() + _BUDGET_S
    rows, in_vain = least, 0
    while rows not in rates and in_vain < _IN_VAIN and time.perf_counter() < end:
        before = max(rates.values(), default=0.0)
        for _ in range(_TRIES):
            rates[rows] = max(rates.get(rows, 0.0), _rate(asker, feed, sample.slice(0, rows), parallel))
            if time.perf_counter() > end:
                break
        in_vain = in_vain + 1 if rates[rows] < before else 0
        rows = min(rows * 4, most)


def _bounded(rows: int, predictor: Predictor, row_bytes: int) -> int:
    limit = predictor.limits.request_bytes
    return rows if limit is None else max(1, min(rows, (limit - _HEADER_BYTES) // max(1, row_bytes)))


def _rate(asker: Asker, feed: Feed, rows: Any, parallel: int) -> float:
    """Rows per second of several batches at once."""
    start = time.perf_counter()
    waiting: deque[Asked] = deque()
    for _ in range(parallel + 1):
        waiting.extend(asker.ask(group) for group in feed.tensors_of(rows, {}).groups)
    while waiting:
        asker.answers(waiting.popleft())
    return float(rows.num_rows * (parallel + 1) / (time.perf_counter() - start))
