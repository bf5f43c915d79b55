"""The bytes of a part's file: Parquet, CSV, JSON lines or npy. The same rows always give the same bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from modelserve.dataset.part import Shape
from modelserve.dataset.tables import array_from_arrow
from modelserve.errors import InputError


@dataclass(frozen=True, slots=True)
class Sink:
    """How a part is written, and what its file's name ends in."""

    name: str
    suffix: str
    encode: Callable[[Any], Any]


def sink(name: str, shape: Shape) -> Sink:
    """The sink called `name`, where it can hold these columns.

    Raises:
        InputError: there is none, it cannot hold them, or two columns have one name.
    """
    found = SINKS.get(name)
    if found is None:
        raise InputError(f"There is no format {name!r} to write; there are {', '.join(SINKS)}.")
    names = shape.schema.names
    twice = next((column for column in names if names.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"{twice!r} is a kept column and an output. Leave it out of keep=, or rename the column.")
    if name == "npy" and len(names) > 1:
        raise InputError(f"A .npy file holds one array; asked are {', '.join(names)}. Write Parquet instead.")
    if name == "csv":
        wide = [field.name for field in shape.schema if pa.types.is_nested(field.type) and not _is_flat(field.type)]
        if wide:
            raise InputError(f"{wide[0]!r} has values of more than one axis, which CSV cannot hold. Write Parquet.")
    return found


def _is_flat(kind: Any) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and not pa.types.is_nested(kind.value_type))


def _parquet(table: Any) -> Any:
    stream = pa.BufferOutputStream()
    # Outputs are numbers that rarely repeat: a dictionary of them costs time and saves nothing.
    words = [field.name for field in table.schema if not _is_number(field.type)]
    pq.write_table(table, stream, row_group_size=max(1, table.num_rows), use_dictionary=words)
    return stream.getvalue()


def _is_number(kind: Any) -> bool:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _csv(table: Any) -> Any:
    stream = pa.BufferOutputStream()
    csv.write_csv(_spread(table), stream)
    return stream.getvalue()


def _spread(table: Any) -> Any:
    """Lists as a column for each of their values: y_0, y_1, ..."""
    columns: dict[str, Any] = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if not pa.types.is_fixed_size_list(column.type):
            columns[name] = column
            continue
        values = column.combine_chunks().flatten()
        size = column.type.list_size
        columns |= {f"{name}_{index}": values.take(pa.array(range(index, len(values), size))) for index in range(size)}
    return pa.table(columns)


def _json_lines(table: Any) -> bytes:
    lines = (json.dumps(row, ensure_ascii=False, default=str) for row in _without_nan(table))
    return "".join(f"{line}\n" for line in lines).encode()


def _without_nan(table: Any) -> Any:
    for row in table.to_pylist():
        yield {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _npy(table: Any) -> bytes:
    stream = io.BytesIO()
    array = array_from_arrow(table.column(0).combine_chunks())
    np.save(stream, array if not isinstance(array, list) else np.stack(array), allow_pickle=False)
    return stream.getvalue()


SINKS: Mapping[str, Sink] = {
    "parquet": Sink("parquet", ".parquet", _parquet),
    "csv": Sink("csv", ".csv", _csv),
    "jsonl": Sink("jsonl", ".jsonl", _json_lines),
    "npy": Sink("npy", ".npy", _npy),
}
