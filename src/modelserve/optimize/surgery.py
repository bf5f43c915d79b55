"""Looking into a graph and changing its weights."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from modelserve.optimize.draft import Calibration, Draft
from modelserve.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

DENSE = frozenset({"MatMul", "Gemm"})


class Graph:
    """A model's main graph by name: who makes a value, who takes it, which values are constant."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        self._uses: Counter[str] = Counter()
        for node in self.nodes:
            # An inner graph takes values of this one without naming them as inputs.
            taken = [*node.input, *inner_names(node)]
            self._uses.update(name for name in taken if name)
            for name in dict.fromkeys(taken):
                self.consumers[name].append(node)

    def array(self, name: str) -> Array:
        """A constant's values."""
        return numpy_helper.to_array(self.constants[name])

    def put(self, name: str, array: Array) -> None:
        """Give a constant other values, or add one."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        if name in self.constants:
            self.constants[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self.constants[name] = self.model.graph.initializer[-1]

    def is_own(self, name: str) -> bool:
        """Whether a constant is used in one place only, so that changing it changes nothing else."""
        return name in self.constants and self._uses[name] == 1

    def is_dense(self, node: NodeProto) -> bool:
        """Whether it multiplies by a constant float matrix of its own."""
        if node.op_type not in DENSE or node.domain or len(node.input) < 2 or node.input[0] in self.constants:
            return False
        plain = node.op_type == "MatMul" or (
            attribute(node, "transA", 0) == 0 and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
        )
        return plain and self.is_own(node.input[1]) and self._is_float(node.input[1], axes=2)

    def is_convolution(self, node: NodeProto) -> bool:
        """Whether it is an ungrouped 2-D convolution by constant weights of its own."""
        return (
            node.op_type == "Conv"
            and attribute(node, "group", 1) == 1
            and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
            and self.is_own(node.input[1])
            and self._is_float(node.input[1], axes=4)
        )

    def _is_float(self, name: str, *, axes: int) -> bool:
        tensor = self.constants[name]
        return len(tensor.dims) == axes and self.array(name).dtype == np.float32


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute's value as plain Python, or the default."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def inner_names(node: NodeProto) -> Iterator[str]:
    """What the graphs inside a node (of If, Loop, Scan) take, whosever it is."""
    for entry in node.attribute:
        for graph in [*([entry.g] if entry.HasField("g") else []), *entry.graphs]:
            for inner in graph.node:
                yield from inner.input
                yield from inner_names(inner)
            yield from (value.name for value in graph.output)


def dense_weights(graph: Graph, node: NodeProto) -> Array:
    """A dense layer's matrix, inputs x outputs."""
    weights = graph.array(node.input[1])
    return weights.T if _is_transposed(node) else weights


def put_dense_weights(graph: Graph, node: NodeProto, weights: Array) -> None:
    """Replace a dense layer's matrix, inputs x outputs."""
    weights = weights.astype(np.float32)
    graph.put(node.input[1], weights.T if _is_transposed(node) else weights)


def output_axis(node: NodeProto) -> int:
    """Along which axis of a dense layer's or convolution's weights its outputs lie."""
    return 0 if node.op_type == "Conv" or _is_transposed(node) else 1


def _is_transposed(node: NodeProto) -> bool:
    return node.op_type == "Gemm" and bool(attribute(node, "transB", 0))


def split_gemms(model: ModelProto) -> None:
    """Write dense Gemms as MatMul (of the same name) and Add, in place; integer kernels exist for MatMul only."""
    graph = Graph(model)
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        nodes += _split(graph, node) if node.op_type == "Gemm" and graph.is_dense(node) else [node]
    replace_nodes(model, nodes)


def replace_nodes(model: ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Put these nodes in the place of all."""
    # Copied first: some lie in the list that is emptied.
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _split(graph: Graph, node: NodeProto) -> list[NodeProto]:
    graph.put(node.input[1], dense_weights(graph, node))
    made = node.output[0]
    has_bias = len(node.input) > 2 and bool(node.input[2])
    product = f"{made}_product" if has_bias else made
    nodes = [helper.make_node("MatMul", list(node.input[:2]), [product], name=node.name)]
    if has_bias:
        nodes.append(helper.make_node("Add", [product, node.input[2]], [made], name=f"{node.name}_bias"))
    return nodes


def activations(
    draft: Draft, names: Sequence[str], calibration: Calibration, *, part: Callable[[str, Array], Array] | None = None
) -> dict[str, list[Array]]:
    """What flows through these values, one array for each batch; `part` says what to keep of one."""
    model = draft.copy_model()
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    session = Draft(model, draft.session).load()
    found: dict[str, list[Array]] = {name: [] for name in names}
    for batch in calibration:
        for name, array in zip(names, session.run(list(names), dict(batch)), strict=True):
            found[name].append(array if part is None else part(name, array))
    return found


def tidy(model: ModelProto) -> None:
    """Leave out what no longer holds or does not compute: shapes inside, traces, opsets that no node uses."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.producer_name, model.producer_version = "modelserve", ""
    model.graph.ClearField("value_info")
    used = {node.domain for node in model.graph.node} | {node.domain for f in model.functions for node in f.node} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used or opset.domain == "ai.onnx"]
    if not has_inner_graphs(model):
        del model.opset_import[:]
        model.opset_import.extend(kept)
    _drop_unused(model)
    name_nodes(model)
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")


def name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own."""
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"


def has_inner_graphs(model: ModelProto) -> bool:
    """Whether a node (If, Loop, Scan) holds graphs of its own."""
    return any(entry.HasField("g") or entry.graphs for node in model.graph.node for entry in node.attribute)


def _drop_unused(model: ModelProto) -> None:
    if has_inner_graphs(model):
        return  # an inner graph may use an outer constant
    used = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    if len(kept) < len(model.graph.initializer):
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)


def operators(model: ModelProto) -> Mapping[str, int]:
    """How often each operator occurs."""
    return Counter(node.op_type for node in model.graph.node)
