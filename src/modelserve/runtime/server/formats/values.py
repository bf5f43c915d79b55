"""JSON values ⇄ arrays: strict about kinds, exact about numbers.

A number that its dtype cannot hold, a word among numbers, a list too deep or of unequal lengths: each is refused with
the name of the input and the place in its data. JSON has no NaN and no infinities, which are null and text both ways.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import msgspec
import numpy as np
import orjson

from modelserve.errors import WireError
from modelserve.tensors import Array

_MOST_AXES = 32
_SPACE = b" \t\r\n"
_KINDS: dict[str, Any] = {"f": float, "i": int, "u": int, "b": bool, "O": str}
_WORDS = {"f": "numbers", "i": "whole numbers", "u": "whole numbers", "b": "true or false", "O": "text"}


def array_from_json(
    data: msgspec.Raw | bytes, dtype: np.dtype[Any], name: str, shape: list[int] | None = None
) -> Array:
    """The array that a JSON list (or a bare value) holds.

    Args:
        name: The input's, for messages.
        shape: What the data is to be: as nested, or flat in row-major order. Without it the nesting gives the shape.

    Raises:
        WireError: it holds something else.
    """
    raw = bytes(data)
    values = _decoded(raw, depth_of(raw, name), dtype, name)
    try:
        with np.errstate(over="raise"):
            array = np.array(values, dtype)
    except (OverflowError, FloatingPointError) as error:
        raise WireError(f"Input {name!r} holds a number that {dtype.name} cannot hold ({error}).") from error
    except ValueError as error:
        raise WireError(f"Input {name!r}: its lists must all have the same length ({error}).") from error
    return array if shape is None else _shaped(array, shape, name)


def json_from_array(array: Array) -> bytes:
    """A JSON list of the array's values, nested as the array is; of a single value without axes that value."""
    if not array.ndim:
        return json_from_array(array.reshape(1))[1:-1]
    if array.dtype.kind == "O":
        return orjson.dumps(array.tolist(), default=_text)
    written = orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
    # JSON has no NaN and no infinity, and the library writes null for both.
    return _with_infinities(array) if b"null" in written else written


def parse(body: bytes | memoryview, kind: Any = Any) -> Any:
    """The JSON of a body.

    Raises:
        WireError: it is none, or not of this kind; the message names the field.
    """
    try:
        return _decoder(kind).decode(body)
    except msgspec.ValidationError as error:
        raise WireError(f"The body does not fit: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"The body is not JSON: {error}.") from error
    except RecursionError as error:
        raise WireError("The body's JSON is nested too deeply. Send flat lists with a shape.") from error


@lru_cache(maxsize=64)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@lru_cache(maxsize=256)
def list_decoder(kind: str, depth: int, *, missing: bool = False) -> msgspec.json.Decoder[Any]:
    """Reads lists so deep of what a dtype of this kind holds, or with `missing` of what stands for no number, too."""
    item: Any = _KINDS[kind]
    if missing:
        item = item | None | Literal["Infinity", "-Infinity"]
    for _ in range(depth):
        item = list[item]
    return msgspec.json.Decoder(item)


def depth_of(raw: bytes, name: str) -> int:
    """How deep the lists are nested.

    Raises:
        WireError: too deep.
    """
    depth = 0
    for byte in raw:
        if byte == 0x5B:
            depth += 1
            if depth > _MOST_AXES:
                raise WireError(f"Input {name!r} is nested more than {_MOST_AXES} lists deep.")
        elif byte not in _SPACE:
            break
    return depth


def _decoded(raw: bytes, depth: int, dtype: np.dtype[Any], name: str) -> Any:
    try:
        return list_decoder(dtype.kind, depth).decode(raw)
    except msgspec.ValidationError as error:
        if dtype.kind == "f" and (b"null" in raw or b'Infinity"' in raw):
            return _with_missing(raw, depth, dtype, name)
        raise WireError(
            f"Input {name!r} of {_called(dtype)} takes {_WORDS[dtype.kind]} in lists of equal depth: {error}."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"Input {name!r} is not JSON: {error}.") from error


def _with_missing(raw: bytes, depth: int, dtype: np.dtype[Any], name: str) -> Any:
    try:
        return list_decoder(dtype.kind, depth, missing=True).decode(raw)
    except msgspec.ValidationError as error:
        raise WireError(f"Input {name!r} of {_called(dtype)} takes numbers, null and 'Infinity': {error}.") from error


def _called(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind == "O" else dtype.name


def _shaped(array: Array, shape: list[int], name: str) -> Array:
    wanted = tuple(shape)
    if array.shape == wanted:
        return array
    if array.ndim > 1 and array.size:
        raise WireError(f"Input {name!r} says shape {shape}, and its data has {list(array.shape)}.")
    if array.size != math.prod(shape) or any(size < 0 for size in shape):
        raise WireError(f"Input {name!r} of shape {shape} takes {math.prod(shape)} values, got {array.size}.")
    return array.reshape(wanted)


def _with_infinities(array: Array) -> bytes:
    flat = [_finite(value) for value in array.ravel().tolist()]
    boxed = np.empty(len(flat), object)
    boxed[:] = flat
    return orjson.dumps(boxed.reshape(array.shape).tolist())


def _finite(value: float) -> float | str | None:
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(value: Any) -> Any:
    # Text that is not valid Unicode (a lone surrogate) cannot be written as JSON.
    return str(value).encode("utf-8", "replace").decode()
