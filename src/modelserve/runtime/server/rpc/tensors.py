"""Infer requests and responses of the protocol by gRPC ⇄ arrays.

raw_input_contents     every input's bytes, little-endian, in the order of the inputs; text as in the binary extension
contents               or the values of each input, in the field of its kind

An answer comes as the question did, unless its parameter `binary_data_output` says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelserve import wire
from modelserve.errors import WireError
from modelserve.runtime.server.formats import oip
from modelserve.runtime.server.formats.question import Described, Question, bounded_timeout_s, known_outputs, question
from modelserve.tensors import Array

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Tensors:
    """Reads and writes them, with the classes of the messages given."""

    def __init__(self, classes: Mapping[str, Any]) -> None:
        self._response = classes["ModelInferResponse"]

    def read(self, asked: Any, model: Described, left_s: float | None) -> Question[Any]:
        """The question of a ModelInferRequest; `left_s` is what the caller's deadline leaves.

        Raises:
            WireError, SignatureError: it is none, or does not fit the model; the message names the field.
        """
        signature = model.signature
        checked = signature.check(oip.by_name(_arrays(asked), signature))
        names = known_outputs(signature, [output.name for output in asked.outputs])
        names = names or tuple(spec.name for spec in signature.outputs)
        raw = _parameter(asked.parameters, "binary_data_output", bool, bool(asked.raw_input_contents))

        def write(arrays: dict[str, Array]) -> Any:
            return self._write(arrays, asked.id, model, raw=raw)

        return question(checked, names, write, _timeout_s(asked, left_s))

    def _write(self, arrays: dict[str, Array], request_id: str, model: Described, *, raw: bool) -> Any:
        response = self._response(model_name=model.name, model_version=model.version, id=request_id)
        # Half precision has no field of its own: with such an output all of them go as bytes.
        raw = raw or any(oip.datatype_of(array) not in _CONTENTS for array in arrays.values())
        for name, array in arrays.items():
            datatype = oip.datatype_of(array)
            output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            if raw:
                (piece,) = wire.encode_reply({name: array}).buffers
                response.raw_output_contents.append(bytes(piece))
            else:
                getattr(output.contents, _CONTENTS[datatype]).extend(_values(array))
        return response


def _arrays(asked: Any) -> dict[str, Array]:
    raw = asked.raw_input_contents
    if raw and len(raw) != len(asked.inputs):
        raise WireError(f"raw_input_contents has {len(raw)} entries for {len(asked.inputs)} inputs. Send one for each.")
    arrays: dict[str, Array] = {}
    for at, given in enumerate(asked.inputs):
        if given.name in arrays:
            raise WireError(f"The input {given.name!r} stands twice.")
        for name in oip.UNSUPPORTED:
            if name in given.parameters:
                raise WireError(f"Input {given.name!r} has the parameter {name!r}, which this server does not offer.")
        shape = tuple(given.shape)
        oip.check_shape(given.name, shape)
        dtype = oip.dtype_named(given.datatype, given.name)
        if raw:
            if given.HasField("contents"):
                raise WireError(f"Input {given.name!r} has both raw and typed contents. Send one of them.")
            arrays[given.name] = oip.array_from_bytes(given.name, given.datatype, shape, memoryview(raw[at]))
        else:
            arrays[given.name] = _typed(given, shape, dtype)
    return arrays


def _typed(given: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    field = _CONTENTS.get(given.datatype)
    if field is None:
        raise WireError(f"Input {given.name!r} of {given.datatype} has no typed contents. Send raw_input_contents.")
    filled = [descriptor.name for descriptor, _ in given.contents.ListFields()]
    if filled not in ([field], []):
        raise WireError(f"Input {given.name!r} of {given.datatype} takes {field}, got {', '.join(filled)}.")
    values = getattr(given.contents, field)
    wanted = math.prod(shape)
    if len(values) != wanted:
        raise WireError(f"Input {given.name!r} of shape {list(shape)} takes {wanted} values, got {len(values)}.")
    if given.datatype == "BYTES":
        return _text(values, given.name).reshape(shape)
    try:
        # By way of a Python list numpy refuses what the dtype cannot hold.
        return np.array(list(values), dtype).reshape(shape)
    except OverflowError as error:
        raise WireError(f"Input {given.name!r} holds a number that {given.datatype} cannot hold ({error}).") from error


def _text(values: Any, name: str) -> Array:
    array = np.empty(len(values), object)
    try:
        array[:] = [value.decode("utf-8", "surrogatepass") for value in values]
    except UnicodeDecodeError as error:
        raise WireError(f"Input {name!r} holds an element that is not UTF-8 text.") from error
    return array


def _values(array: Array) -> Any:
    flat = array.reshape(-1).tolist()
    return [value.encode("utf-8", "surrogatepass") for value in flat] if array.dtype.kind == "O" else flat


def _parameter(parameters: Any, name: str, kind: type, default: Any) -> Any:
    if name not in parameters:
        return default
    choice = parameters[name].WhichOneof("parameter_choice")
    value = None if choice is None else getattr(parameters[name], choice)
    if type(value) is not kind:
        raise WireError(f"The parameter {name!r} must be of kind {kind.__name__}, got {value!r}.")
    return value


def _timeout_s(asked: Any, left_s: float | None) -> float | None:
    """What the caller allows: by the deadline of the call, by Triton's parameter in microseconds, or the sooner one."""
    micros = _parameter(asked.parameters, "timeout", int, None)
    named_s = None if micros is None else bounded_timeout_s(micros / 1e6, "The parameter 'timeout'")
    allowed = [seconds for seconds in (left_s, named_s) if seconds is not None]
    return min(allowed, default=None)
