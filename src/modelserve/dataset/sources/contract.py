"""What rows can come from: Arrow record batches in the source's order, from any row on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

#: A row's position for people: the file that it came from, and its number there from 0.
Place = tuple[str, int]


class Chunk(NamedTuple):
    """Some rows in a piece.

    Attributes:
        rows: A `pyarrow.RecordBatch` with the columns that were asked for.
        origin: Where they come from: a file, or the kind of the object.
        start: The number of the first one there.
        refused: Rows that could not be read, by their number within this chunk, and why. They hold nothing.
    """

    rows: Any
    origin: str
    start: int
    refused: Mapping[int, str] = {}

    def after(self, skipped: int) -> Chunk:
        """What is left of it behind the first rows."""
        if not skipped:
            return self
        refused = {at - skipped: why for at, why in self.refused.items() if at >= skipped}
        return Chunk(self.rows.slice(skipped), self.origin, self.start + skipped, refused)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read.

    Attributes:
        columns: Names of the columns, each once, in the order in which they are wanted.
        types: What cells are to be read as, by column, where a source has text and no types of its own.
    """

    columns: tuple[str, ...]
    types: Mapping[str, Any] = field(default_factory=dict)


class Source(ABC):
    """Rows with named columns.

    Attributes:
        schema: All of its columns, as a `pyarrow.Schema`.
        rows: How many there are; None where that is known only at the end.
        identity: What it is made of, as plain JSON: equal for equal content. None where that cannot be told before
            it is read, as of an iterator.
        is_typed: Whether its numbers have a type of their own, and are not text.
        keeps: The columns that name a row, for whoever does not say which are to be kept.
    """

    schema: Any
    rows: int | None
    identity: Mapping[str, Any] | None
    is_typed: bool = True
    keeps: Sequence[str] = ()
    #: Whether another process can read it by `locations`.
    locations: Sequence[str] = ()

    @abstractmethod
    def chunks(self, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        """The rows from number `start` on, in pieces of about `chunk_rows` and at most that.

        Raises:
            SourceError: a part of it cannot be read, or has other columns than the first.
        """

    def head(self, wanted: Wanted, rows: int) -> Any:
        """The first rows, at most so many, as one record batch; reading goes on as if they had not been looked at."""
        found = next(self.chunks(wanted, start=0, chunk_rows=rows), None)
        return pa.RecordBatch.from_pylist([], projected(self.schema, wanted)) if found is None else found.rows


def projected(schema: Any, wanted: Wanted) -> Any:
    """The columns that are wanted, with the types in which they are given."""
    return pa.schema([pa.field(name, wanted.types.get(name, schema.field(name).type)) for name in wanted.columns])
