"""A source's rows in batches of a fixed size, and batches in parts: the boundaries that a resumed run keeps.

chunks as they are read   |------------|-----|-----------------|--------
batches (one request)     |----|----|----|----|----|----|----|----|---
parts (one file)          |--------------|--------------|-------------
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from modelserve.dataset.sources import Chunk


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Rows of a batch, and rows of a part: a multiple of it."""

    batch_rows: int
    part_rows: int


class Piece(NamedTuple):
    """One batch of a part.

    Attributes:
        start: The number of its first row in the source.
        rows: A `pyarrow.RecordBatch`.
        places: Where rows come from, as (number in this batch, origin, number there) of each first one.
        refused: Rows that could not be read, by their number in this batch, and why.
    """

    part: int
    start: int
    rows: Any
    places: list[tuple[int, str, int]]
    refused: dict[int, str]

    def place(self, row: int) -> tuple[str, int]:
        """Where a row of this batch comes from."""
        at, origin, start = next(place for place in reversed(self.places) if place[0] <= row)
        return origin, start + row - at


def pieces(chunks: Iterable[Chunk], boundaries: Boundaries, start: int) -> Iterator[Piece]:
    """Cut chunks into batches.

    Args:
        start: The number of the first row of the first chunk; a part begins there.
    """
    waiting: deque[Chunk] = deque()
    held, at = 0, start
    for chunk in chunks:
        waiting.append(chunk)
        held += chunk.rows.num_rows
        while held >= boundaries.batch_rows:
            yield _taken(waiting, boundaries.batch_rows, at, boundaries)
            held -= boundaries.batch_rows
            at += boundaries.batch_rows
    if held:
        yield _taken(waiting, held, at, boundaries)


def _taken(waiting: deque[Chunk], rows: int, at: int, boundaries: Boundaries) -> Piece:
    """The first rows of what waits."""
    batches: list[Any] = []
    places: list[tuple[int, str, int]] = []
    refused: dict[int, str] = {}
    count = 0
    while count < rows:
        chunk = waiting.popleft()
        part = chunk.rows.slice(0, rows - count)
        batches.append(part)
        places.append((count, chunk.origin, chunk.start))
        refused |= {count + row: why for row, why in chunk.refused.items() if row < part.num_rows}
        if part.num_rows < chunk.rows.num_rows:
            waiting.appendleft(chunk.after(part.num_rows))
        count += part.num_rows
    return Piece(at // boundaries.part_rows, at, _joined(batches), places, refused)


def _joined(batches: list[Any]) -> Any:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
