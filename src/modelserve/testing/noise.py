"""Everything that reads bytes from the network, as functions that must refuse noise by an error of ours and no other.

Used by a fuzzer (`tests/property/fuzz_wire.py`) for as long as one likes, and by a short test always.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from modelserve import wire
from modelserve.errors import ModelServeError
from modelserve.runtime.server.formats import npy, oip, rows
from modelserve.runtime.server.models.served import Face
from modelserve.runtime.server.rpc import schema
from modelserve.runtime.server.rpc.tensors import Tensors
from modelserve.tensors import Signature, TensorSpec

_SPECS = (TensorSpec("x", "float32", ("batch", 2)), TensorSpec("n", "int64", ("batch",)))
_MODELS = (
    Face("one", "1", Signature(_SPECS[:1], _SPECS[:1]), ""),
    Face("two", "1", Signature(_SPECS, _SPECS[:1]), ""),
    Face("text", "1", Signature((TensorSpec("t", "string", ("batch",)),), _SPECS[:1]), ""),
)
_CLASSES = schema.classes()
_TENSORS = Tensors(_CLASSES)


def _message(layout: Callable[[bytes], wire.Layout]) -> Callable[[bytes], None]:
    """The first two bytes are the header's length."""

    def read(content: bytes) -> None:
        length = int.from_bytes(content[:2], "little")
        found = layout(content[2 : 2 + length])
        wire.decode(found, content[2 + length :])

    return read


def _infer_request(content: bytes) -> None:
    """The first byte chooses the model, the next two the length of the JSON part (none where they are 0)."""
    length = int.from_bytes(content[1:3], "little")
    oip.read(content[3:], str(length).encode() if length else None, _model(content))


def _rows(content: bytes) -> None:
    rows.read(content[1:], _model(content))


def _npy(content: bytes) -> None:
    npy.read(content[1:], _model(content))


def _grpc(content: bytes) -> None:
    try:
        asked = _CLASSES["ModelInferRequest"].FromString(content[1:])
    except Exception as error:  # protobuf's own reader, which has one error class and refuses by it
        if type(error).__name__ != "DecodeError":
            raise
        return
    _TENSORS.read(asked, _model(content), None)


def _model(content: bytes) -> Face:
    return _MODELS[content[0] % len(_MODELS)] if content else _MODELS[0]


READERS: dict[str, Callable[[bytes], Any]] = {
    "request": _message(wire.request_layout),
    "reply": _message(wire.reply_layout),
    "error": lambda content: wire.decode_error(content),
    "infer": _infer_request,
    "rows": _rows,
    "npy": _npy,
    "grpc": _grpc,
}


def refused_or_read(reader: str, content: bytes) -> bool:
    """Whether the reader took the bytes; False where it refused them as it should.

    Raises:
        Exception: it failed otherwise.
    """
    try:
        READERS[reader](content)
    except ModelServeError:
        return False
    return True


def seeds() -> list[tuple[str, bytes]]:
    """Messages that are read, by reader: where a search for bad ones begins."""
    x, n = np.ones((1, 2), np.float32), np.array([3])
    request, reply = wire.encode_request({"x": x, "n": n}, ("x",)), wire.encode_reply({"x": x})
    by_json = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'
    binary = (
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}],'
        b'"outputs":[{"name":"x","parameters":{"binary_data":true}}],"parameters":{"timeout":1000}}'
    )
    asked = _CLASSES["ModelInferRequest"](model_name="one", raw_input_contents=[x.tobytes()])
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    typed = _CLASSES["ModelInferRequest"](model_name="two")
    typed.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.0, 2.0])
    typed.inputs.add(name="n", datatype="INT64", shape=[1]).contents.int64_contents.append(3)
    return [
        ("request", len(request.header).to_bytes(2, "little") + request.join()),
        ("reply", len(reply.header).to_bytes(2, "little") + reply.join()),
        ("error", wire.encode_error(ModelServeError("said"))),
        ("infer", b"\0\0\0" + by_json),
        ("infer", b"\0" + len(binary).to_bytes(2, "little") + binary + x.tobytes()),
        ("infer", b"\2\0\0" + b'{"inputs":[{"name":"t","datatype":"BYTES","shape":[1],"data":["a"]}]}'),
        ("rows", b"\0" + b'{"instances":[[1,2]]}'),
        ("rows", b"\1" + b'{"instances":[{"x":[1,2],"n":3}]}'),
        ("rows", b"\0" + b'{"dataframe_split":{"columns":["a","b"],"data":[[1,2]]}}'),
        ("npy", b"\0" + _saved(x)),
        ("grpc", b"\0" + asked.SerializeToString()),
        ("grpc", b"\1" + typed.SerializeToString()),
    ]


def _saved(array: np.ndarray[Any, Any]) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
