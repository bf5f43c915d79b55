"""What lies in the caller's memory: Arrow tables, pandas and polars frames, arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from modelserve.dataset.sources.arrays import COLUMN
from modelserve.dataset.sources.contract import Chunk, Source, Wanted
from modelserve.dataset.tables import arrow_from_array
from modelserve.errors import SourceError


class TableSource(Source):
    """A `pyarrow.Table`."""

    def __init__(self, table: Any, origin: str) -> None:
        self._table = table
        self._origin = origin
        self.schema = table.schema.remove_metadata()
        self.rows = table.num_rows
        self._digest = ""

    @property
    def identity(self) -> Mapping[str, Any]:  # type: ignore[override]  # read through once, when first asked for
        if not self._digest:
            digest = hashlib.sha256()
            for batch in self._table.to_batches():
                digest.update(content_of(batch))
            self._digest = digest.hexdigest()
        return {"kind": "table", "rows": self.rows, "schema": str(self.schema), "sha256": self._digest}

    def chunks(self, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        at = start
        for batch in self._table.select(list(wanted.columns)).slice(start).to_batches(max_chunksize=chunk_rows):
            yield Chunk(batch, self._origin, at)
            at += batch.num_rows


def content_of(batch: Any) -> Any:
    """The bytes of a record batch: equal for equal values, wherever it was cut from."""
    compact = pa.Table.from_batches([batch]).combine_chunks().to_batches()
    stream = pa.BufferOutputStream()
    with ipc.new_stream(stream, batch.schema.remove_metadata()) as writer:
        for part in compact:
            writer.write_batch(part)
    return stream.getvalue()


def as_table(given: Any) -> Any:
    """A table from whatever holds columns; None where this is nothing of the kind.

    Raises:
        SourceError: it holds columns that Arrow has no type for.
    """
    try:
        return _as_table(given)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"This {type(given).__name__} cannot be read as a table: {error}.") from error


def _as_table(given: Any) -> Any:
    if isinstance(given, pa.Table):
        return given
    if isinstance(given, pa.RecordBatch):
        return pa.Table.from_batches([given])
    root = type(given).__module__.partition(".")[0]
    # Told by their module, so that neither pandas nor polars is imported.
    if root == "pandas" and hasattr(given, "columns"):
        return pa.Table.from_pandas(given, preserve_index=False)
    if root == "polars" and hasattr(given, "to_arrow"):
        return given.to_arrow()
    if isinstance(given, np.ndarray) and given.ndim:
        return pa.table({COLUMN: arrow_from_array(np.ascontiguousarray(given))})
    if isinstance(given, Mapping) and given and all(_is_column(value) for value in given.values()):
        return pa.table({str(name): _column(value) for name, value in given.items()})
    return None


def _is_column(value: Any) -> bool:
    # numpy sees nothing in lists of several lengths, which are rows of their own shapes.
    return isinstance(value, list | tuple) or bool(np.ndim(value))


def _column(value: Any) -> Any:
    return arrow_from_array(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else pa.array(value)
