"""Arrays ⇄ Arrow columns: a row of a tensor is a (nested) list of fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelserve.tensors import Array, TensorSpec

# A block of the matrix that stays in a processor's own cache while its columns are written one by one.
_BLOCK_BYTES = 512 << 10
# Arrow's own conversion lets go of the interpreter once, and writes a whole matrix column by column.
_ARROW_BYTES = 2 << 20


def side_by_side(columns: Sequence[Array], dtype: npt.DTypeLike) -> Array:
    """Columns of one length as the rows of a matrix: (rows, len(columns)), C-contiguous."""
    rows, width = len(columns[0]), len(columns)
    matrix = np.empty((rows, width), dtype)
    step = max(16, _BLOCK_BYTES // (width * matrix.itemsize))
    for start in range(0, rows, step):
        block = matrix[start : start + step]
        for index, column in enumerate(columns):
            block[:, index] = column[start : start + step]
    return matrix


def matrix_of(rows: Any, dtype: np.dtype[Any]) -> Array | None:
    """A record batch whose columns have one dtype and no gaps as a matrix; None where it is not so."""
    kind = pa.from_numpy_dtype(dtype) if dtype.kind in "iuf" else None
    if kind is None or any(column.type != kind or column.null_count for column in rows.columns):
        return None
    if rows.num_rows * rows.num_columns * dtype.itemsize <= _ARROW_BYTES:
        matrix: Array = rows.to_tensor(row_major=True).to_numpy()
        return matrix
    return side_by_side([column.to_numpy() for column in rows.columns], dtype)


def arrow_from_array(array: Array) -> Any:
    """A column whose rows are those of the array; numbers are not copied."""
    if array.dtype.kind in "OUT":
        return _nested(pa.array(array.reshape(-1).tolist(), pa.string()), array.shape[1:])
    flat = np.ascontiguousarray(array).reshape(-1)
    return _nested(
        pa.array(flat if flat.dtype.isnative else flat.astype(flat.dtype.newbyteorder("="))), array.shape[1:]
    )


def _nested(values: Any, shape: Sequence[int]) -> Any:
    for size in reversed(shape):
        values = pa.FixedSizeListArray.from_arrays(values, size)
    return values


def arrow_type(spec: TensorSpec) -> Any:
    """The type of an output's column: lists of fixed size, or of any size where an axis is free."""
    kind = pa.string() if spec.dtype == "string" else pa.from_numpy_dtype(spec.numpy_dtype)
    for size in reversed(_row_shape(spec)):
        kind = pa.list_(kind, size) if isinstance(size, int) else pa.list_(kind)
    return kind


def arrow_from_answer(spec: TensorSpec, array: Array) -> Any:
    """An answer's rows as a column of `arrow_type(spec)`; the column has memory of its own."""
    shape = _row_shape(spec)
    kind = arrow_type(spec)
    if all(isinstance(size, int) for size in shape):
        fixed = array.reshape(len(array), *shape)
        return arrow_from_array(fixed if fixed.dtype.kind in "OUT" else np.array(fixed, spec.numpy_dtype))
    return pa.array([row.tolist() for row in array], kind)


def _row_shape(spec: TensorSpec) -> tuple[int | str, ...]:
    # A single value for each row needs no list around it.
    shape = spec.shape[1:]
    return () if shape == (1,) else shape


def array_from_arrow(column: Any) -> Array | list[Array]:
    """A column's rows as one array; as a list of arrays where their shapes differ. Missing numbers are NaN or None."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    shape: list[int] = []
    while pa.types.is_fixed_size_list(column.type) and not column.null_count:
        shape.append(column.type.list_size)
        column = column.flatten()
    if _is_list(column.type):
        return _rows(column, shape)
    values: Array = column.to_numpy(zero_copy_only=False)
    return values.reshape(-1, *shape) if shape else values


def _rows(column: Any, shape: Sequence[int]) -> Array | list[Array]:
    """Lists of any length: one array where they agree."""
    lengths = column.value_lengths()
    first = lengths[0].as_py() if len(lengths) else 0
    if not column.null_count and not shape and pa.compute.all(pa.compute.equal(lengths, first)).as_py():
        inner = array_from_arrow(column.flatten())
        if not isinstance(inner, list):
            return inner.reshape(len(column), first, *inner.shape[1:])
    rows = [np.asarray(row.as_py()) for row in column]
    return rows if not shape else np.stack(rows).reshape(-1, *shape, *rows[0].shape)


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
