"""Tensors and errors ⇄ bytes: the Open Inference Protocol v2 with its binary tensor extension.

    {"inputs": [{"name", "shape", "datatype", "parameters": {"binary_data_size": n}}], ...}   header, JSON
    raw little-endian tensor, raw little-endian tensor, ...                                   body

A message travels as a sequence of buffers, header first, so that whoever carries it copies each array once.
Text is BYTES: each element a 4-byte little-endian length and its UTF-8 bytes.
Source of the format: https://github.com/kserve/open-inference-protocol and the binary tensor data extension of
https://github.com/triton-inference-server/server (docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from modelserve.errors import ModelServeError, OverloadedError, WireError, by_code
from modelserve.tensors import OIP_DATATYPES, Array, Tensors

Buffer: TypeAlias = bytes | bytearray | memoryview

# Read back through its code, so that on a little-endian machine each is numpy's own object, fast to compare.
_DTYPES = {
    oip: np.dtype(object if oip == "BYTES" else np.dtype(name).newbyteorder("<").str)
    for name, oip in OIP_DATATYPES.items()
}
_DATATYPES = {np.dtype(name): oip for name, oip in OIP_DATATYPES.items() if name != "string"}
_NOTHING = memoryview(b"")
#: The parameter of a request that asks for one run of exactly its rows.
ALONE = "alone"
_MAX_AXES = 64
_MAX_HEADER_BYTES = 1 << 20
# What numpy can address; sizes beside an axis of 0 count too, although such a tensor has no bytes.
_MAX_TENSOR_BYTES = 1 << 62
_CACHED_HEADER_BYTES = 4096


class Message(NamedTuple):
    """A request or a reply: a JSON header, and the memory of each tensor in the header's order."""

    header: bytes
    buffers: tuple[memoryview, ...]

    @property
    def size_bytes(self) -> int:
        """Header and body together."""
        return len(self.header) + sum(buffer.nbytes for buffer in self.buffers)

    def join(self) -> bytes:
        """Header and body in one piece, for places that carry one body."""
        return b"".join((self.header, *self.buffers))


class Reply(NamedTuple):
    """An answer as it arrived; `body` is memory that belongs to whoever holds the reply."""

    header: bytes
    body: memoryview


class Field(NamedTuple):
    """One tensor as the header announces it; `data` is set when the values stand in the header itself."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    data: tuple[Any, ...] | None = None


class Layout(NamedTuple):
    """What a header says: the tensors, and the outputs that are asked for (none means the primary one).

    `is_alone` asks for one run of exactly these rows, neither joined with others nor cut, so that the same request is
    always answered with the same bits.
    """

    fields: tuple[Field, ...]
    outputs: tuple[str, ...]
    body_bytes: int
    is_alone: bool = False

    @property
    def rows(self) -> int:
        """Size of the first tensor's first axis."""
        shape = self.fields[0].shape
        return shape[0] if shape else 1


def encode_request(tensors: Tensors, outputs: Sequence[str] = (), *, is_alone: bool = False) -> Message:
    """The request for `outputs` of a model that is given `tensors` (C-contiguous, by input name).

    Args:
        is_alone: As in `Layout`.
    """
    return _encode("inputs", tensors, tuple(outputs), is_alone)


def encode_reply(tensors: Tensors) -> Message:
    """The answer: `tensors` by output name."""
    return _encode("outputs", tensors, ())


def request_layout(header: bytes) -> Layout:
    """What the header of a request announces.

    Raises:
        WireError: the header is not one of a request.
    """
    return _layout("inputs", header)


def reply_layout(header: bytes) -> Layout:
    """What the header of a reply announces.

    Raises:
        WireError: the header is not one of a reply.
    """
    return _layout("outputs", header)


def decode(layout: Layout, body: Buffer | None) -> dict[str, Array]:
    """The tensors of a message; arrays are views of `body` wherever its memory is aligned for them.

    Raises:
        WireError: the body is not of the size that the header announces, or holds no such values.
    """
    size_bytes = 0 if body is None else memoryview(body).nbytes
    if size_bytes != layout.body_bytes:
        raise WireError(f"The header announces {layout.body_bytes} bytes of tensors, the body has {size_bytes}.")
    return {field.name: _array(field, body) for field in layout.fields}


def encode_error(error: ModelServeError) -> bytes:
    """An error as code and text; never a pickled object."""
    content: dict[str, Any] = {"code": error.code, "error": str(error)}
    if isinstance(error, OverloadedError):
        content["retry_after_s"] = error.retry_after_s
    return json.dumps(content).encode()


def decode_error(content: Buffer) -> ModelServeError:
    """The error that `encode_error` wrote, in its own class.

    Raises:
        WireError: these bytes are no error.
    """
    try:
        parsed = json.loads(bytes(content))
        kind, text = by_code(parsed["code"]), str(parsed["error"])
        if kind is OverloadedError:
            return OverloadedError(text, retry_after_s=_waiting_time(parsed.get("retry_after_s", 1.0)))
        return kind(text)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(f"Not an error message: {bytes(content[:80])!r}.") from error


def _waiting_time(value: Any) -> float:
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{value!r} is no time to wait")
    return seconds


def _encode(kind: str, tensors: Tensors, outputs: tuple[str, ...], is_alone: bool = False) -> Message:
    described = []
    buffers = []
    for name, array in tensors.items():
        datatype = _DATATYPES.get(array.dtype)
        if datatype is None:
            memory, datatype = _text_bytes(name, array), "BYTES"
        else:
            memory = array.data.cast("B") if array.size else _NOTHING
        described.append((name, datatype, array.shape, memory.nbytes))
        buffers.append(memory)
    return Message(_header(kind, tuple(described), outputs, is_alone), tuple(buffers))


@lru_cache(maxsize=512)
def _header(
    kind: str, described: tuple[tuple[str, str, tuple[int, ...], int], ...], outputs: tuple[str, ...], is_alone: bool
) -> bytes:
    content: dict[str, Any] = {
        kind: [
            {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size_bytes}}
            for name, datatype, shape, size_bytes in described
        ]
    }
    if outputs:
        content["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    if is_alone:
        content["parameters"] = {ALONE: True}
    return json.dumps(content, separators=(",", ":")).encode()


def _text_bytes(name: str, array: Array) -> memoryview:
    pieces = []
    for item in array.flat:
        if not isinstance(item, str):
            raise WireError(f"Tensor {name!r} holds {type(item).__name__} {item!r}; only text can travel as BYTES.")
        encoded = item.encode("utf-8", "surrogatepass")
        pieces += [len(encoded).to_bytes(4, "little"), encoded]
    return memoryview(b"".join(pieces))


def _layout(kind: str, header: bytes) -> Layout:
    return _cached_layout(kind, header) if len(header) <= _CACHED_HEADER_BYTES else _parse(kind, header)


def _parse(kind: str, header: bytes) -> Layout:
    if len(header) > _MAX_HEADER_BYTES:
        raise WireError(f"The header has {len(header)} bytes; at most {_MAX_HEADER_BYTES} are read.")
    try:
        content = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise WireError(f"The header is not JSON: {error}.") from error
    described = content.get(kind) if isinstance(content, dict) else None
    if not isinstance(described, list) or not described:
        raise WireError(f"The header must be an object with a list {kind!r} of at least one tensor.")
    fields: list[Field] = []
    offset = 0
    for entry in described:
        fields.append(_field(entry, offset))
        offset += fields[-1].size_bytes
    if len({field.name for field in fields}) != len(fields):
        raise WireError(f"The tensors' names must differ, got {[field.name for field in fields]}.")
    if kind == "outputs":
        return Layout(tuple(fields), (), offset)
    return Layout(tuple(fields), _asked(content), offset, _is_alone(content))


_cached_layout = lru_cache(maxsize=512)(_parse)


def _field(entry: Any, offset: int) -> Field:
    if not isinstance(entry, dict):
        raise WireError(f"A tensor must be described by an object, got {entry!r}.")
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if not isinstance(name, str) or not name:
        raise WireError(f"A tensor needs a name, got {name!r}.")
    if not isinstance(datatype, str) or datatype not in _DTYPES:
        raise WireError(f"Tensor {name!r} has datatype {datatype!r}; known are {', '.join(_DTYPES)}.")
    if not isinstance(shape, list) or len(shape) > _MAX_AXES or not all(_is_count(size) for size in shape):
        raise WireError(f"Tensor {name!r} needs a shape of whole numbers from 0 up, got {shape!r}.")
    if math.prod(size or 1 for size in shape) * _DTYPES[datatype].itemsize > _MAX_TENSOR_BYTES:
        raise WireError(f"Tensor {name!r} of shape {shape} is larger than any memory.")
    parameters = entry.get("parameters") or {}
    size_bytes = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size_bytes is None:
        return _inline_field(name, datatype, tuple(shape), entry.get("data"), offset)
    wanted = math.prod(shape) * _DTYPES[datatype].itemsize
    if not _is_count(size_bytes) or (datatype != "BYTES" and size_bytes != wanted):
        raise WireError(f"Tensor {name!r} of shape {shape} takes {wanted} bytes, the header says {size_bytes!r}.")
    return Field(name, datatype, tuple(shape), offset, size_bytes)


def _inline_field(name: str, datatype: str, shape: tuple[int, ...], data: Any, offset: int) -> Field:
    if not isinstance(data, list):
        raise WireError(f"Tensor {name!r} needs 'data' or the parameter 'binary_data_size'.")
    flat = tuple(_flatten(data))
    if len(flat) != math.prod(shape):
        raise WireError(f"Tensor {name!r} of shape {list(shape)} takes {math.prod(shape)} values, got {len(flat)}.")
    return Field(name, datatype, shape, offset, 0, flat)


def _flatten(data: list[Any]) -> list[Any]:
    level = data
    while any(isinstance(item, list) for item in level):
        if not all(isinstance(item, list) for item in level):
            raise WireError("Nested 'data' must be a list of lists of equal depth.")
        level = [item for inner in level for item in inner]
    return level


def _asked(content: Mapping[str, Any]) -> tuple[str, ...]:
    asked = content.get("outputs") or []
    if not isinstance(asked, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in asked
    ):
        raise WireError("'outputs' must be a list of objects, each with a name.")
    return tuple(entry["name"] for entry in asked)


def _is_alone(content: Mapping[str, Any]) -> bool:
    parameters = content.get("parameters")
    return isinstance(parameters, dict) and parameters.get(ALONE) is True


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _array(field: Field, body: Buffer | None) -> Array:
    if field.data is not None:
        return _from_values(field)
    assert body is not None or field.size_bytes == 0
    if field.datatype == "BYTES":
        return _from_text(field, memoryview(body or b""))
    dtype = _DTYPES[field.datatype]
    if not field.size_bytes:
        return np.empty(field.shape, dtype)
    array: Array = np.ndarray(field.shape, dtype, body, field.offset)
    if field.datatype == "BOOL" and array.view(np.uint8).max() > 1:
        raise WireError(f"Tensor {field.name!r} of BOOL holds bytes other than 0 and 1.")
    # onnxruntime reads the memory as it lies; a tensor behind one of odd size may lie askew.
    return array if array.flags.aligned else array.copy()


def _from_values(field: Field) -> Array:
    dtype = _DTYPES[field.datatype]
    kinds = {"BYTES": str, "BOOL": bool}.get(field.datatype, (int,) if dtype.kind in "iu" else (int, float))
    assert field.data is not None
    for value in field.data:
        if not isinstance(value, kinds) or (isinstance(value, bool) and field.datatype != "BOOL"):
            raise WireError(f"Tensor {field.name!r} of {field.datatype} cannot hold {value!r}.")
    try:
        with np.errstate(over="ignore"):
            array = np.array(field.data, dtype)
    except (OverflowError, ValueError, TypeError) as error:
        raise WireError(f"Tensor {field.name!r} of {field.datatype}: {error}.") from error
    if dtype.kind == "f":
        too_large = next(
            (v for v, cast in zip(field.data, array, strict=True) if np.isinf(cast) and abs(v) < math.inf), None
        )
        if too_large is not None:
            raise WireError(f"Tensor {field.name!r} of {field.datatype} cannot hold {too_large!r}.")
    return array.reshape(field.shape)


def _from_text(field: Field, body: memoryview) -> Array:
    part = body[field.offset : field.offset + field.size_bytes]
    items: list[str] = []
    at = 0
    count = math.prod(field.shape)
    while at < len(part):
        end = at + 4 + int.from_bytes(part[at : at + 4], "little")
        if at + 4 > len(part) or end > len(part) or len(items) == count:
            raise WireError(f"Tensor {field.name!r}: its BYTES do not hold {count} elements.")
        try:
            items.append(str(part[at + 4 : end], "utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise WireError(f"Tensor {field.name!r}: element {len(items)} is not UTF-8 text.") from error
        at = end
    if len(items) != count:
        raise WireError(f"Tensor {field.name!r} of shape {list(field.shape)} takes {count} elements, got {len(items)}.")
    array = np.empty(count, object)
    array[:] = items
    return array.reshape(field.shape)
