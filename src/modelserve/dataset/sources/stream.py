"""What can be read only once: iterators of rows or tables, and Arrow's record-batch readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from modelserve.dataset.sources.columnar import cut
from modelserve.dataset.sources.contract import Chunk, Source, Wanted
from modelserve.dataset.sources.memory import as_table
from modelserve.errors import SourceError

_ROWS_AT_ONCE = 1024


class StreamSource(Source):
    """Tables, frames, dicts of columns, arrays of rows, or single rows as dicts, one after the other."""

    identity = None
    rows = None

    def __init__(self, items: Iterable[Any]) -> None:
        self._origin = type(items).__name__
        self._tables = _tables(iter(items))
        self._is_read = False
        first = next(self._tables, None)
        if first is None:
            raise SourceError(f"The {self._origin} gives nothing. Give one that gives at least one row.")
        self.schema = first.schema.remove_metadata()
        self._tables = chain([first], self._tables)

    def head(self, wanted: Wanted, rows: int) -> Any:
        first = next(self._tables)
        self._tables = chain([first], self._tables)
        batches = first.select(list(wanted.columns)).slice(0, rows).combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], first.select(list(wanted.columns)).schema)

    def chunks(self, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        if self._is_read:
            raise SourceError(f"The {self._origin} was read before, and can be read only once. Make it anew.")
        self._is_read = True
        at = 0
        for number, table in enumerate(self._tables):
            for whole in self._checked(table, number, wanted).to_batches():
                for batch in cut(whole, chunk_rows):
                    chunk = Chunk(batch, self._origin, at)
                    at += batch.num_rows
                    if at > start:
                        yield chunk.after(max(0, start - chunk.start))

    def _checked(self, table: Any, number: int, wanted: Wanted) -> Any:
        missing = [name for name in wanted.columns if name not in table.schema.names]
        if missing:
            raise SourceError(
                f"Item {number} of the {self._origin} lacks the column(s) {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(repr, table.schema.names))}."
            )
        chosen = table.select(list(wanted.columns))
        expected = pa.schema([self.schema.field(name) for name in wanted.columns])
        try:
            return chosen.replace_schema_metadata().cast(expected)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise SourceError(
                f"Item {number} of the {self._origin} has other types than the first: {error}."
            ) from error


def _tables(items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        if _is_row(item):
            others = islice(items, _ROWS_AT_ONCE - 1)
            yield _from_rows([item, *others])
            continue
        table = as_table(item)
        if table is None:
            raise SourceError(
                f"An iterator gives tables, frames, arrays of rows, dicts of columns, or rows as dicts; this one gives "
                f"{type(item).__name__}."
            )
        yield table


def _is_row(item: Any) -> bool:
    return isinstance(item, Mapping) and bool(item) and not all(np.ndim(value) for value in item.values())


def _from_rows(rows: list[Any]) -> Any:
    odd = next((row for row in rows if not isinstance(row, Mapping)), None)
    if odd is not None:
        raise SourceError(f"Among rows as dicts stands a {type(odd).__name__}. Give rows of one kind.")
    try:
        return pa.Table.from_pylist([dict(row) for row in rows])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SourceError(f"The rows' values are of several kinds: {error}.") from error
