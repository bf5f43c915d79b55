"""The Open Inference Protocol v2: JSON, and JSON with the tensors' raw bytes behind it.

POST /v2/models/{name}[/versions/{version}]/infer
Inference-Header-Content-Length: n          where the first n bytes are JSON and the rest are tensors

https://github.com/kserve/open-inference-protocol and, for the binary extension,
https://github.com/triton-inference-server/server (docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson

from modelserve import wire
from modelserve.errors import WireError
from modelserve.runtime.server.formats.pattern import Patterns
from modelserve.runtime.server.formats.question import (
    Described,
    Question,
    bounded_timeout_s,
    is_as_it_came,
    known_outputs,
    tensors,
)
from modelserve.runtime.server.formats.relay import HEADER_LENGTH as HEADER_LENGTH
from modelserve.runtime.server.formats.relay import OCTETS as OCTETS
from modelserve.runtime.server.formats.relay import Relay, may_pass
from modelserve.runtime.server.formats.values import array_from_json, json_from_array, parse
from modelserve.runtime.server.http.messages import Response
from modelserve.tensors import OIP_DATATYPES, Array, Signature, TensorSpec

DTYPES = {oip: np.dtype(object if name == "string" else name) for name, oip in OIP_DATATYPES.items()}
_DATATYPES = {dtype: oip for oip, dtype in DTYPES.items()}
#: Parameters by which other servers are asked for what there is not here.
UNSUPPORTED = ("shared_memory_region", "classification")
_DIGITS = 12
_MOST_AXES = 32
_ABSENT = msgspec.Raw()
_relay = Relay()
_patterns = Patterns()


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw = _ABSENT


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct, gc=False):
    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


class Asked(NamedTuple):
    """How an answer is to look: the request's id, and for each output whether it goes as raw bytes."""

    id: str
    outputs: tuple[str, ...]
    binary: tuple[bool, ...]


def read(body: bytes | memoryview, header_length: bytes | None, model: Described) -> Question[Response]:
    """The question in the body of an infer request.

    Raises:
        WireError, SignatureError: it is none, or does not fit the model; the message names the field.
    """
    content, rest = _divided(body, header_length)
    if rest:
        content = bytes(content)
        known = _relay.question(content, rest, model)
    else:
        known = _patterns.question(content, model)
    if known is not None:
        return known
    asked: _Request = parse(content, _Request)
    arrays = _arrays(asked.inputs, rest)
    checked = model.signature.check(by_name(arrays, model.signature))
    wanted = _wanted(asked, model)
    parameters = asked.parameters or {}
    message = wire.encode_request(checked.tensors, wanted.outputs, is_alone=parameters.get(wire.ALONE) is True)
    timeout_s = _timeout_s(parameters) if parameters else None
    found = Question(message, checked.rows, lambda reply: answer(reply, wanted, model), timeout_s)
    if not asked.id and is_as_it_came(arrays, checked, model.signature):
        if not rest and not any(wanted.binary):
            (given,), (array,) = asked.inputs, arrays.values()
            alike = partial(answer, asked=wanted)
            _patterns.note(content, bytes(given.data), array, found, model.digest, alike)
        elif rest and wanted.binary and all(wanted.binary) and may_pass(model.signature):
            _relay.note(bytes(content), rest, found, model)
    return found


def answer(reply: wire.Reply, asked: Asked, model: Described) -> Response:
    """The answer, with raw bytes behind the JSON where they were asked for."""
    arrays = tensors(reply)
    if any(asked.binary):
        return _binary(arrays, asked, model)
    start, middles = _json_frame(reply.header, model.name, model.version)
    parts = [start, b',"id":%b' % orjson.dumps(asked.id) if asked.id else b"", b',"outputs":[']
    for middle, array in zip(middles, arrays.values(), strict=True):
        parts += (middle, json_from_array(array.reshape(-1)), b"}")
    parts.append(b"]}")
    return Response(b"".join(parts))


def by_name(arrays: dict[str, Array], signature: Signature) -> Any:
    """The arrays as `Signature.check` takes them: a single one that fits by its name goes by itself."""
    if len(arrays) == 1 and len(signature.inputs) == 1 and signature.inputs[0].name in arrays:
        return arrays[signature.inputs[0].name]
    return arrays


def datatype_of(array: Array) -> str:
    """The protocol's word for an array's dtype."""
    return _DATATYPES[array.dtype]


def dtype_named(datatype: str, name: str) -> np.dtype[Any]:
    """The dtype that an input's datatype names.

    Raises:
        WireError: none does.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise WireError(f"Input {name!r} has datatype {datatype!r}; known are {', '.join(DTYPES)}.")
    return dtype


def array_from_bytes(name: str, datatype: str, shape: tuple[int, ...], content: memoryview) -> Array:
    """The array whose raw bytes these are. The memory stays the caller's.

    Raises:
        WireError: they are not of this shape, or the shape is none.
    """
    check_shape(name, shape)
    wanted_bytes = math.prod(shape) * dtype_named(datatype, name).itemsize
    if datatype != "BYTES" and wanted_bytes != len(content):
        raise WireError(
            f"Input {name!r} of {datatype}{list(shape)} takes {wanted_bytes} bytes, {len(content)} are said to be its."
        )
    field = wire.Field(name, datatype, shape, 0, len(content))
    return wire.decode(wire.Layout((field,), (), len(content)), content)[name]


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Refuse what is no shape.

    Raises:
        WireError: it has sizes below 0, or too many.
    """
    if any(size < 0 for size in shape) or len(shape) > _MOST_AXES:
        raise WireError(f"Input {name!r} needs a shape of at most {_MOST_AXES} sizes from 0 up, got {list(shape)}.")


def spec_json(spec: TensorSpec) -> dict[str, Any]:
    """A tensor as the model's metadata describes it: -1 for an axis of any size."""
    shape = [-1 if isinstance(size, str) else size for size in spec.shape]
    return {"name": spec.name, "datatype": OIP_DATATYPES[spec.dtype], "shape": shape}


def _divided(body: bytes | memoryview, header_length: bytes | None) -> tuple[bytes | memoryview, memoryview]:
    """The JSON part, and the tensors' bytes behind it."""
    if header_length is None:
        return body, memoryview(b"")
    if not header_length.isdigit() or len(header_length) > _DIGITS or int(header_length) > len(body):
        raise WireError(
            f"The header {HEADER_LENGTH.decode()!r} is {header_length[:40].decode('latin-1')!r}, and the body has "
            f"{len(body)} bytes. It must be the number of bytes of the JSON part."
        )
    whole = memoryview(body)
    return whole[: int(header_length)], whole[int(header_length) :]


def _arrays(inputs: Sequence[_Input], rest: memoryview) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    at = 0
    for given in inputs:
        if given.name in arrays:
            raise WireError(f"The input {given.name!r} stands twice.")
        dtype = dtype_named(given.datatype, given.name)
        if given.parameters is None:
            arrays[given.name] = _inline(given, dtype)
            continue
        size_bytes = _binary_size(given)
        if size_bytes is None:
            arrays[given.name] = _inline(given, dtype)
            continue
        content = rest[at : at + size_bytes]
        if len(content) < size_bytes:
            raise WireError(
                f"Input {given.name!r} announces {size_bytes} bytes; only {len(content)} are left of the body."
            )
        arrays[given.name] = array_from_bytes(given.name, given.datatype, tuple(given.shape), content)
        at += size_bytes
    if at != len(rest):
        raise WireError(f"{len(rest)} bytes follow the JSON, its inputs announce {at}.")
    return arrays


def _inline(given: _Input, dtype: np.dtype[Any]) -> Array:
    if not len(given.data):
        raise WireError(f"Input {given.name!r} needs 'data', or the parameter 'binary_data_size'.")
    return array_from_json(given.data, dtype, given.name, given.shape)


def _binary_size(given: _Input) -> int | None:
    parameters = given.parameters or {}
    for name in UNSUPPORTED:
        if name in parameters:
            raise WireError(f"Input {given.name!r} has the parameter {name!r}, which this server does not offer.")
    size_bytes = parameters.get("binary_data_size")
    if size_bytes is None:
        return None
    if len(given.data):
        raise WireError(f"Input {given.name!r} has both 'data' and 'binary_data_size'. Send one of them.")
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
        raise WireError(f"Input {given.name!r} has binary_data_size {size_bytes!r}; it must be a number of bytes.")
    return size_bytes


def _wanted(asked: _Request, model: Described) -> Asked:
    parameters = asked.parameters or {}
    binary = parameters.get("binary_data_output", False) is True
    if not asked.outputs:
        names, all_binary = _every_output(model)
        return Asked(asked.id, names, all_binary) if binary else Asked(asked.id, names, ())
    flags = []
    for output in asked.outputs:
        own = output.parameters or {}
        for name in UNSUPPORTED:
            if own.get(name):
                raise WireError(f"Output {output.name!r} has the parameter {name!r}, which this server does not offer.")
        flags.append(own.get("binary_data", binary) is True)
    return Asked(asked.id, known_outputs(model.signature, [output.name for output in asked.outputs]), tuple(flags))


def _every_output(model: Described) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    outputs = model.signature.outputs
    return tuple([spec.name for spec in outputs]), (True,) * len(outputs)


def _timeout_s(parameters: dict[str, Any]) -> float | None:
    """Triton's parameter: microseconds."""
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if not isinstance(timeout, int) or isinstance(timeout, bool):
        raise WireError(f"The parameter 'timeout' is a whole number of microseconds, got {timeout!r}.")
    return bounded_timeout_s(timeout / 1e6, "The parameter 'timeout'")


@lru_cache(maxsize=1024)
def _json_frame(header: bytes, name: str, version: str) -> tuple[bytes, list[bytes]]:
    """What stands around the data of an answer; the same for all replies with this header."""
    middles: list[bytes] = []
    for field in wire.reply_layout(header).fields:
        described = orjson.dumps({"name": field.name, "datatype": field.datatype, "shape": field.shape})
        middles.append((b"," if middles else b"") + described[:-1] + b',"data":')
    return orjson.dumps({"model_name": name, "model_version": version})[:-1], middles


def _binary(arrays: dict[str, Array], asked: Asked, model: Described) -> Response:
    outputs: list[dict[str, Any]] = []
    pieces: list[bytes | memoryview] = []
    for (name, array), binary in zip(arrays.items(), asked.binary, strict=True):
        entry: dict[str, Any] = {"name": name, "datatype": _DATATYPES[array.dtype], "shape": array.shape}
        if binary:
            (piece,) = wire.encode_reply({name: array}).buffers
            entry["parameters"] = {"binary_data_size": piece.nbytes}
            pieces.append(piece)
        else:
            entry["data"] = orjson.Fragment(json_from_array(array.reshape(-1)))
        outputs.append(entry)
    content: dict[str, Any] = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    if asked.id:
        content["id"] = asked.id
    header = orjson.dumps(content)
    return Response([header, *pieces], OCTETS, headers=((HEADER_LENGTH, b"%d" % len(header)),))
