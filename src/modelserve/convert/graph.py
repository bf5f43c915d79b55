"""Small changes to a graph that every converter needs: names, casts at the edges, nothing that differs by the day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from modelserve.errors import ConversionError
from modelserve.tensors import TensorSpec

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto


def rename(model: ModelProto, names: Mapping[str, str]) -> None:
    """Give values other names, in the graph and in every graph inside it.

    A name that some inner value has already is taken from that one first.
    """
    wanted = {old: new for old, new in names.items() if old != new}
    known = set(value_names(model.graph))
    for new in set(wanted.values()) & known - set(wanted):
        wanted[new] = _free_name(new, known | set(wanted.values()))
    _rename(model.graph, wanted)


def clean(model: ModelProto) -> None:
    """Leave out what does not compute: documentation, traces, the exporter's counters and paths.

    Values inside the graph are named anew, by their order: exporters count up over all that they export in a process.
    """
    _name_values(model.graph)
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.producer_name, model.producer_version, model.domain, model.model_version = "modelserve", "", "", 0
    model.graph.name = "model"
    for graph in _graphs(model.graph):
        graph.ClearField("doc_string")
        graph.ClearField("metadata_props")
        graph.ClearField("value_info")
        for index, node in enumerate(graph.node):
            node.name = f"{node.op_type}_{index}"
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
        for tensor in graph.initializer:
            tensor.ClearField("doc_string")
            # What onnx.load writes down of weights that lay beside the graph.
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
    for function in model.functions:
        function.ClearField("doc_string")
        for node in function.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")


def describe(value: ValueInfoProto, *, batch: bool = True) -> TensorSpec:
    """A graph's input or output as a spec; unnamed axes of any size get names, the first one "batch"."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in _DTYPES:
        raise ConversionError(f"{value.name!r} is of a kind that cannot be served: {value.type}.")
    shape: list[int | str] = []
    for axis, size in enumerate(tensor.shape.dim):
        if size.HasField("dim_value") and size.dim_value > 0:
            shape.append(size.dim_value)
        else:
            shape.append("batch" if axis == 0 and batch else size.dim_param or f"{value.name}_axis_{axis}")
    return TensorSpec(value.name, _DTYPES[tensor.elem_type], tuple(shape))


def declare(model: ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Write specs into the graph's own declarations, casting where the graph has another dtype inside."""
    for spec in inputs:
        _cast_input(model, spec)
    for spec in outputs:
        _cast_output(model, spec)


def element_type(dtype: str) -> int:
    """ONNX's number for a dtype of ours."""
    return TensorProto.STRING if dtype == "string" else int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


_DTYPES = {
    TensorProto.STRING: "string",
    **{
        int(helper.np_dtype_to_tensor_dtype(np.dtype(name))): name
        for name in (
            [
                "bool",
                "uint8",
                "uint16",
                "uint32",
                "uint64",
                "int8",
                "int16",
                "int32",
                "int64",
                "float16",
                "float32",
                "float64",
            ]
        )
    },
}


def _cast_input(model: ModelProto, spec: TensorSpec) -> None:
    value = next(value for value in model.graph.input if value.name == spec.name)
    inside = value.type.tensor_type.elem_type
    value.CopyFrom(helper.make_tensor_value_info(spec.name, element_type(spec.dtype), list(spec.shape)))
    if inside == element_type(spec.dtype):
        return
    narrow = _free_name(f"{spec.name}_inside", set(value_names(model.graph)))
    for node in _nodes(model.graph):
        for at, name in enumerate(node.input):
            if name == spec.name:
                node.input[at] = narrow
    model.graph.node.insert(0, helper.make_node("Cast", [spec.name], [narrow], to=inside))


def _cast_output(model: ModelProto, spec: TensorSpec) -> None:
    """An output of the wanted dtype and number of axes, made of what the graph gives."""
    value = next(value for value in model.graph.output if value.name == spec.name)
    inside = value.type.tensor_type.elem_type
    axes = len(value.type.tensor_type.shape.dim) if value.type.tensor_type.HasField("shape") else None
    value.CopyFrom(helper.make_tensor_value_info(spec.name, element_type(spec.dtype), list(spec.shape)))
    if inside == element_type(spec.dtype) and axes == len(spec.shape):
        return
    raw = _free_name(f"{spec.name}_inside", set(value_names(model.graph)))
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == spec.name:
                node.output[at] = raw
        for at, name in enumerate(node.input):
            if name == spec.name:
                node.input[at] = raw
    last = raw
    if axes != len(spec.shape):
        shape = [size if isinstance(size, int) else -1 for size in spec.shape]
        last, target = f"{raw}_shaped", f"{raw}_shape"
        model.graph.initializer.append(helper.make_tensor(target, TensorProto.INT64, [len(shape)], shape))
        model.graph.node.append(helper.make_node("Reshape", [raw, target], [last]))
    if inside == element_type(spec.dtype):
        model.graph.node.append(helper.make_node("Identity", [last], [spec.name]))
    else:
        model.graph.node.append(helper.make_node("Cast", [last], [spec.name], to=element_type(spec.dtype)))


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for inner in _graphs(graph):
        yield from inner.node


def value_names(graph: GraphProto) -> Iterator[str]:
    """Names of all values, in the graph and in every graph inside it."""
    for inner in _graphs(graph):
        for value in (*inner.input, *inner.output, *inner.initializer):
            yield value.name
        for node in inner.node:
            yield from node.output
            yield from node.input


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for inner in _graphs(graph):
        for value in (*inner.input, *inner.output, *inner.initializer, *inner.value_info):
            value.name = names.get(value.name, value.name)
        for node in inner.node:
            for fields in (node.input, node.output):
                for at, name in enumerate(fields):
                    fields[at] = names.get(name, name)


def _name_values(graph: GraphProto) -> None:
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    names: dict[str, str] = {}
    for inner in _graphs(graph):
        for tensor in inner.initializer:
            if tensor.name not in kept:
                names.setdefault(tensor.name, f"weight_{len(names)}")
        for value in (*inner.input, *inner.output) if inner is not graph else ():
            if value.name not in kept:
                names.setdefault(value.name, f"inner_{len(names)}")
        for node in inner.node:
            for name in node.output:
                if name not in kept:
                    names.setdefault(name, f"{node.op_type}_{len(names)}")
    taken = {new for new in names.values() if new in kept}
    _rename(graph, {old: f"{new}_" if new in taken else new for old, new in names.items()})


def _free_name(wish: str, taken: set[str]) -> str:
    name, number = wish, 1
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name
