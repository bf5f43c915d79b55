"""Tables as files: CSV with a header line, Arrow streams, Parquet. Answers in the form of the question.

What a table takes in memory can be far more than its bytes say. So the number of cells is looked at before any is
unfolded, and an Arrow stream whose buffers are compressed is refused: `Content-Encoding` compresses within bounds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from modelserve.errors import MissingExtraError, WireError
from modelserve.runtime.server.formats.arrow_messages import check_uncompressed
from modelserve.runtime.server.formats.parquet_files import batches
from modelserve.runtime.server.formats.question import Described, Question, question
from modelserve.runtime.server.formats.table import Table, check_size, table_of_rows
from modelserve.runtime.server.http.messages import Response
from modelserve.tensors import Array, Signature

if TYPE_CHECKING:
    import pyarrow as pa

CSV = b"text/csv"
ARROW = b"application/vnd.apache.arrow.stream"
PARQUET = b"application/vnd.apache.parquet"
_MOST_TEXT = 256 << 20
_NULLS = {"", "NaN", "nan", "null", "NA"}


def read_csv(body: bytes | memoryview, model: Described) -> Question[Response]:
    """The question in a CSV table with a header line.

    Raises:
        WireError, SignatureError: it is none, or does not fit the model.
    """
    try:
        text = str(memoryview(body), "utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise WireError(f"The body is not CSV in UTF-8: {error}.") from error
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise WireError("The CSV needs a line with the columns' names, and at least one row below it.")
    table = table_of_rows(rows[0], rows[1:])
    words = _words(model.signature)
    columns = {name: table[name].to_numpy() if name in words else _numbers(name, table) for name in table.columns}
    return question(model.signature.check(_frame(Table(columns), model.signature)), (), _csv)


def read_arrow(body: bytes | memoryview, model: Described) -> Question[Response]:
    """The question in an Arrow IPC stream.

    Raises:
        WireError, SignatureError: it is none, or does not fit the model.
    """
    arrow = _arrow()
    check_uncompressed(memoryview(body))

    def read() -> Any:
        with arrow.ipc.open_stream(arrow.py_buffer(body)) as reader:
            batches, rows = [], 0
            for batch in reader:
                rows += batch.num_rows
                check_size(rows, batch.num_columns)
                batch.validate(full=True)
                batches.append(batch)
            return arrow.Table.from_batches(batches, reader.schema)

    return _from_arrow(read, model, ARROW)


def read_parquet(body: bytes | memoryview, model: Described) -> Question[Response]:
    """The question in a Parquet file.

    Raises:
        WireError, SignatureError: it is none, or does not fit the model.
    """
    arrow = _arrow()

    def read() -> Any:
        found = list(batches(arrow.BufferReader(arrow.py_buffer(body))))
        if not found:
            raise WireError("The file holds no rows. Send at least one.")
        return arrow.Table.from_batches(found)

    return _from_arrow(read, model, PARQUET)


def _arrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Arrow and Parquet need the package 'pyarrow', which this server does not have. "
            'Send JSON or CSV, or install it there with: pip install "modelserve[tables]"'
        ) from error
    return pa


def _from_arrow(read: Callable[[], Any], model: Described, kind: bytes) -> Question[Response]:
    arrow = _arrow()
    try:
        table: pa.Table = read()
        columns = {name: _array(table.column(at)) for at, name in enumerate(table.column_names)}
    except (arrow.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise WireError(f"The body is not a table that can be read: {str(error)[:300]}.") from error
    if len(columns) != len(table.column_names) or not columns:
        raise WireError(f"The table's columns must be different names, got {table.column_names[:20]}.")
    frame = _frame(Table(columns), model.signature)
    signature = model.signature
    return question(signature.check(frame), (), lambda arrays: _write_arrow(arrays, signature, kind))


def _array(column: Any) -> Array:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_run_end_encoded(kind) or (pa.types.is_nested(kind) and not _is_list(kind)):
        raise WireError(f"A column of {kind} is not read. Send plain values, or lists of one length.")
    if _is_list(kind):
        rows = len(column)
        values = [_array(chunk.flatten()) for chunk in column.chunks]
        flat = np.concatenate(values) if values else np.empty(0)
        if not rows or column.null_count or flat.size % rows or set(_lengths(column)) != {flat.size // rows}:
            raise WireError(f"A column of {kind} must have lists of one length in every row.")
        return flat.reshape(rows, -1)
    if pa.types.is_dictionary(kind):
        return np.concatenate([_words_of(chunk) for chunk in column.chunks])
    array: Array = column.to_numpy() if hasattr(column, "chunks") else column.to_numpy(zero_copy_only=False)
    return array


def _words_of(chunk: Any) -> Array:
    """The text of a column that is a dictionary and indices; each word exists once, however often it stands there."""
    words = chunk.dictionary.to_numpy(zero_copy_only=False)
    indices = chunk.indices.to_numpy(zero_copy_only=False)
    if chunk.null_count:
        raise WireError("A column of text has missing values, which are no text. Fill them first.")
    sizes = np.array([len(word) if isinstance(word, str) else 0 for word in words])
    if len(indices) and sizes[indices].sum() > _MOST_TEXT:
        raise WireError(f"A column of text has more than {_MOST_TEXT} characters. Send parts.")
    array: Array = words[indices]
    return array


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lengths(column: Any) -> list[int]:
    import pyarrow.compute as pc

    return [int(length) for length in pc.list_value_length(column).unique().to_pylist()]


def _frame(table: Table, signature: Signature) -> Any:
    if len(signature.inputs) > 1 or signature.inputs[0].columns:
        return table
    if len(table.columns) == 1:
        array = table[table.columns[0]].to_numpy()
        return array if array.ndim == len(signature.inputs[0].shape) else array.reshape(len(array), -1)
    return table.to_numpy()


def _words(signature: Signature) -> set[str]:
    """Columns that are text to the model."""
    return {name for spec in signature.inputs if spec.dtype == "string" for name in (spec.columns or (spec.name,))}


def _numbers(name: str, table: Table) -> Array:
    cells = table[name].to_numpy()
    try:
        if all(cell.lstrip("+-").isdigit() for cell in cells):
            return np.array([int(cell) for cell in cells])
        return np.array([np.nan if cell in _NULLS else float(cell) for cell in cells])
    except ValueError as error:
        raise WireError(f"Column {name!r} of the CSV holds what is no number ({str(error)[:120]}).") from error


def _csv(arrays: dict[str, Array]) -> Response:
    (array,) = arrays.values()
    rows = array.reshape(array.shape[0] if array.ndim else 1, -1)
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows.tolist())
    return Response(content.getvalue().encode(), CSV)


def _write_arrow(arrays: dict[str, Array], signature: Signature, kind: bytes) -> Response:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (array,) = arrays.values()
    rows = array.reshape(array.shape[0] if array.ndim else 1, -1)
    flat = pa.array(rows.ravel() if rows.dtype.kind != "O" else rows.ravel().tolist())
    column = flat if rows.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    table = pa.table({signature.primary: column})
    content = pa.BufferOutputStream()
    if kind == PARQUET:
        pq.write_table(table, content)
    else:
        with pa.ipc.new_stream(content, table.schema) as stream:
            stream.write_table(table)
    return Response(content.getvalue().to_pybytes(), kind)
