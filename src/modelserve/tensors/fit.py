"""One value as an array of an input's dtype, unchanged or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelserve.errors import SignatureError
from modelserve.tensors.spec import Array, TensorSpec


def is_column(specs: Sequence[TensorSpec], spec: TensorSpec) -> bool:
    """Whether an input is one column of a table: one of several of shape (batch, 1)."""
    return len(specs) > 1 and spec.is_batched and spec.shape[1:] == (1,)


def fit(spec: TensorSpec, value: Any, *, is_column: bool = False) -> tuple[Array, bool | None]:
    """The value as the input's array, and whether it came without the batch axis; None where it can be read both ways.

    Args:
        is_column: The value may be a plain column of shape (batch,), or one cell.
    """
    array = _as_array(spec, value)
    lacks: bool | None = spec.is_batched and array.ndim == len(spec.shape) - 1
    if is_column and array.ndim < 2:
        lacks = True if not array.ndim else None if array.size == 1 else False
        array = array.reshape(-1, 1)
    elif lacks:
        array = array[np.newaxis]
    if array.ndim != len(spec.shape):
        raise SignatureError(
            f"Input {spec.name!r} must be {spec}, got shape {array.shape}: {len(spec.shape)} axes are wanted."
        )
    if array.size == 0:
        raise SignatureError(f"Input {spec.name!r} is empty, shape {array.shape}. Give at least one row.")
    array = np.asarray(as_dtype(spec, array, typed=hasattr(value, "dtype")), order="C")
    if not spec.allows_nan and array.dtype.kind == "f" and np.isnan(array).any():
        row = int(np.argwhere(np.isnan(array))[0][0])
        raise SignatureError(
            f"Input {spec.name!r} holds NaN (first in row {row}), which this model cannot take. "
            "Fill or drop those rows first."
        )
    return array, lacks


def _as_array(spec: TensorSpec, value: Any) -> Array:
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise SignatureError(
                f"Input {spec.name!r} has masked values, which no model takes. Fill them with .filled(value)."
            )
        return value
    # As numpy's own text, what ends in NUL would lose it, and a number among the words would become one.
    kind = object if spec.dtype == "string" and not hasattr(value, "dtype") else None
    try:
        array = np.asarray(value, dtype=kind)
    except (ValueError, TypeError, RuntimeError) as error:
        raise SignatureError(
            f"Input {spec.name!r} must be {spec}; the {type(value).__name__} given cannot be read as one array "
            f"({error}). Rows must all have the same length."
        ) from error
    return array


def as_dtype(spec: TensorSpec, array: Array, *, typed: bool) -> Array:
    """The array in the input's dtype. `typed`: its dtype was the caller's choice, so that floats may not be rounded."""
    want = spec.numpy_dtype
    if spec.dtype == "string":
        return _as_text(spec, array)
    if array.dtype == want:
        return array
    if array.dtype.kind == "O":
        array = _unbox(spec, array)
    if array.dtype.kind not in "biuf" or (array.dtype.kind != "b") == (want.kind == "b"):
        raise SignatureError(f"Input {spec.name!r} must be {want.name}, got {array.dtype.name}.")
    with np.errstate(all="ignore"):
        cast = array.astype(want)
        if not _never_rounds(array.dtype, want) and not _same_values(array, cast, typed=typed):
            raise SignatureError(
                f"Input {spec.name!r} must be {want.name}, got {array.dtype.name} whose values would change on the "
                f"way. Convert it with .astype({want.name!r}) if that is meant."
            )
    return cast


def _as_text(spec: TensorSpec, array: Array) -> Array:
    if array.dtype.kind in "UT":
        return array.astype(object)
    if array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat):
        return array
    odd = next((item for item in array.flat if not isinstance(item, str)), None)
    hint = " Rows must all have the same length." if isinstance(odd, list | tuple) else ""
    raise SignatureError(f"Input {spec.name!r} must be text, got {type(odd).__name__} {odd!r}.{hint}")


def _unbox(spec: TensorSpec, array: Array) -> Array:
    """Python's own numbers as numpy's; None is a missing number, and text is none even where it looks like one."""
    items = array.ravel().tolist()
    is_float = spec.numpy_dtype.kind == "f"
    never = (str, bytes) if spec.dtype == "bool" else (str, bytes, bool, np.bool_)
    try:
        odd = next((item for item in items if isinstance(item, never)), None)
        if odd is not None:
            raise TypeError(f"found {type(odd).__name__} {odd!r}")
        numbers = np.asarray(items, dtype=np.float64 if is_float else None).reshape(array.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise SignatureError(
            f"Input {spec.name!r} must be {spec}; the values given are not all numbers that fit ({error}). "
            "Rows must all have the same length."
        ) from error
    pairs = zip(items, numbers.ravel().tolist(), strict=True)
    if is_float and any(isinstance(item, int | np.integer) and int(item) != number for item, number in pairs):
        raise SignatureError(
            f"Input {spec.name!r} must be {spec.dtype}, got whole numbers that it would round. "
            "Convert them with float() if that is meant."
        )
    return numbers


def _never_rounds(given: np.dtype[Any], want: np.dtype[Any]) -> bool:
    # numpy calls 64-bit integers to float64 safe, although it rounds above 2**53.
    return np.can_cast(given, want, "safe") and not (given.kind in "iu" and given.itemsize == 8 and want.kind == "f")


def _same_values(array: Array, cast: Array, *, typed: bool) -> bool:
    if array.dtype.kind == "f" and cast.dtype.kind == "f":
        # Python's own floats carry no promise of 64 bits: only an overflow changes them.
        if not typed:
            return bool(np.array_equal(np.isfinite(array), np.isfinite(cast)))
    elif not (_within(array, cast.dtype) and _within(cast, array.dtype)):
        return False
    back = cast.astype(array.dtype)
    return bool(np.array_equal(back, array, equal_nan=array.dtype.kind == "f"))


def _within(values: Array, dtype: np.dtype[Any]) -> bool:
    """Whether `dtype` reaches far enough. A cast there and back does not tell: it wraps around twice."""
    if dtype.kind not in "iu":
        return True
    bounds = np.iinfo(dtype)
    # As Python's numbers, which compare exactly whatever their kinds.
    return bool(bounds.min <= values.min().item() and values.max().item() <= bounds.max)
