"""CSV and JSON lines: cells of text, read as what is wanted of each column; a cell that is none spoils its row only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from modelserve.dataset.sources.columnar import cut
from modelserve.dataset.sources.contract import Chunk, Wanted
from modelserve.dataset.sources.location import File
from modelserve.errors import SourceError

_BLOCK_BYTES = 4 << 20
_SEEN_LINES = 1000
#: What stands for a missing number in files of text, beside nothing.
_MISSING = ["NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


class CsvFormat:
    """Comma-separated values under a line of names.

    Columns that are kept stay text as it is written (007 is no 7); those that the model takes become numbers.
    """

    name = "csv"
    is_typed = False

    def schema(self, file: File) -> Any:
        with file.open() as stream:
            first = stream.readline()
        if not first.strip():
            raise SourceError(f"{file.path!r} has no line of column names. Write one, or leave the file out.")
        with (
            file.open() as stream,
            csv.open_csv(stream, _read(1 << 20), convert_options=_convert(_names(first))) as reader,
        ):
            names = reader.schema.names
        if len(set(names)) < len(names):
            raise SourceError(f"{file.path!r} names a column twice: {', '.join(names)}.")
        return pa.schema([pa.field(name, pa.string()) for name in names])

    def rows(self, file: File) -> int | None:
        return None

    def chunks(self, file: File, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        names = list(wanted.columns)
        at = 0
        with (
            file.open() as stream,
            csv.open_csv(stream, _read(_BLOCK_BYTES), convert_options=_convert(names)) as reader,
        ):
            for block in reader:
                for batch in cut(block, chunk_rows):
                    yield _typed(batch, wanted, file.path, at)
                    at += batch.num_rows


def _names(line: bytes) -> list[str]:
    import csv as lines

    return next(lines.reader([line.decode("utf-8-sig")]))


def _read(block_bytes: int) -> Any:
    return csv.ReadOptions(block_size=block_bytes)


def _convert(names: Sequence[str]) -> Any:
    types = dict.fromkeys(names, pa.string())
    return csv.ConvertOptions(column_types=types, include_columns=list(names), strings_can_be_null=False)


def _typed(batch: Any, wanted: Wanted, origin: str, at: int) -> Chunk:
    refused: dict[int, str] = {}
    columns = []
    for name in wanted.columns:
        cells = batch.column(name)
        kind = wanted.types.get(name, pa.string())
        columns.append(cells if pa.types.is_string(kind) else _numbers(name, cells, kind, refused))
    rows = pa.RecordBatch.from_arrays(columns, names=list(wanted.columns))
    return Chunk(rows, origin, at, refused)


def _numbers(name: str, cells: Any, kind: Any, refused: dict[int, str]) -> Any:
    trimmed = pc.utf8_trim_whitespace(cells)
    missing = pc.is_in(trimmed, pa.array(["", *_MISSING]))
    present = pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)
    try:
        return present.cast(kind)
    except pa.ArrowInvalid:
        return _one_by_one(name, present, kind, refused)


def _one_by_one(name: str, cells: Any, kind: Any, refused: dict[int, str]) -> Any:
    found: list[Any] = []
    for at, cell in enumerate(cells):
        try:
            found.append(cell.cast(kind).as_py())
        except pa.ArrowInvalid:
            found.append(None)
            refused.setdefault(at, f"Column {name!r} holds {cell.as_py()!r}, which is no {kind}.")
    return pa.array(found, kind)


class JsonLinesFormat:
    """One JSON object a line."""

    name = "jsonl"
    is_typed = False

    def schema(self, file: File) -> Any:
        with file.open() as stream:
            lines = [line for line in islice(stream, _SEEN_LINES) if line.strip()]
        rows = [row for row in map(_parsed, lines) if isinstance(row, dict)]
        if lines and not rows:
            raise SourceError(f"{file.path!r} holds no JSON object in its first lines. Write one object a line.")
        names = dict.fromkeys(name for row in rows for name in row)
        return pa.schema([_field(name, [row.get(name) for row in rows]) for name in names])

    def rows(self, file: File) -> int | None:
        return None

    def chunks(self, file: File, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        schema = self.schema(file)
        at = 0
        with file.open() as stream:
            lines = (line for line in stream if line.strip())
            while some := list(islice(lines, chunk_rows)):
                yield _from_lines(some, wanted, schema, file.path, at)
                at += len(some)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _field(name: str, values: Sequence[Any]) -> Any:
    try:
        return pa.field(name, pa.array(values).type)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        # Values of several kinds: the first one's is meant, and the others spoil their rows.
        return pa.field(name, pa.array([next(value for value in values if value is not None)]).type)


def _from_lines(lines: Sequence[bytes], wanted: Wanted, schema: Any, origin: str, at: int) -> Chunk:
    refused: dict[int, str] = {}
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        row = _parsed(line)
        if not isinstance(row, dict):
            refused[number] = f"The line is no JSON object: {line[:60]!r}."
            row = {}
        rows.append(row)
    columns = []
    for name in wanted.columns:
        kind = wanted.types.get(name) or schema.field(name).type
        columns.append(_values(name, [row.get(name) for row in rows], kind, refused))
    return Chunk(pa.RecordBatch.from_arrays(columns, names=list(wanted.columns)), origin, at, refused)


def _values(name: str, values: Sequence[Any], kind: Any, refused: dict[int, str]) -> Any:
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        pass
    found: list[Any] = []
    for at, value in enumerate(values):
        try:
            pa.array([value], kind)
            found.append(value)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            found.append(None)
            refused.setdefault(at, f"{name!r} holds {value!r}, which is no {kind}.")
    return pa.array(found, kind)
