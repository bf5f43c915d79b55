"""A graph on disk: small ones in one file, the weights of large ones beside it, written one after the other.

model.onnx         the graph
model.onnx.data    its weights, where they lie beside it, so that processes can map one copy

A graph of any size: nothing is held in memory twice but the one tensor that is being written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"

# Below this size one file loads as fast and is easier to handle; above it workers gain by mapping the weights.
_BESIDE_FROM_BYTES = 8 << 20
# What is smaller stays in the graph: shapes and the like, which tools look at.
_SMALLEST_BESIDE_BYTES = 1024
_ALIGNED_TO_BYTES = 64


def save_model(model: ModelProto, folder: Path) -> Path:
    """Write the graph into `folder`; the model itself stays as it is. Returns the graph's file."""
    path = folder / MODEL
    if weight_bytes(model) < _BESIDE_FROM_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        path.write_bytes(_with_weights_beside(model, folder).SerializeToString(deterministic=True))
    return path


def weight_bytes(model: ModelProto) -> int:
    """Size of the graph's weights, without looking at them."""
    return sum(_size_bytes(tensor) for tensor in model.graph.initializer)


def _with_weights_beside(model: ModelProto, folder: Path) -> ModelProto:
    """A copy whose large tensors point into the file of weights."""
    import onnx

    copy = onnx.ModelProto()
    for message, target, left_out in ((model, copy, "graph"), (model.graph, copy.graph, "initializer")):
        for field, value in message.ListFields():
            if field.name != left_out:
                _set(target, field.name, value)
    with (folder / WEIGHTS).open("wb") as file:
        copy.graph.initializer.extend(_moved(model, file))
    return copy


def _moved(model: ModelProto, file: Any) -> Iterator[TensorProto]:
    import onnx

    for tensor in model.graph.initializer:
        if _size_bytes(tensor) < _SMALLEST_BESIDE_BYTES:
            yield tensor
            continue
        file.write(b"\0" * (-file.tell() % _ALIGNED_TO_BYTES))
        offset = file.tell()
        length = file.write(_data(tensor))
        beside = onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        beside.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
            beside.external_data.add(key=key, value=str(value))
        yield beside


def _set(target: Any, name: str, value: Any) -> None:
    if hasattr(value, "extend") or hasattr(value, "MergeFrom"):
        getattr(target, name).MergeFrom(value)
    else:
        setattr(target, name, value)


def _data(tensor: TensorProto) -> bytes:
    import onnx

    return tensor.raw_data if tensor.HasField("raw_data") else onnx.numpy_helper.to_array(tensor).tobytes()


def _size_bytes(tensor: TensorProto) -> int:
    """Of a tensor that can lie beside the graph; 0 for text and for what is packed in fields of its own."""
    import onnx

    plain = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64}
    if tensor.data_type == onnx.TensorProto.STRING or not (tensor.HasField("raw_data") or tensor.data_type in plain):
        return 0
    bits = _BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type), 8)
    return int(math.prod(tensor.dims)) * bits // 8


_BITS = {
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64", "COMPLEX64"), 64),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    "COMPLEX128": 128,
}
