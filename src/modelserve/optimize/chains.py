"""Where a graph has units that can be removed.

    first ──► elementwise, per-unit constants, pooling, reshape ──► second        every path between them, and no other
    (makes the units)                                               (takes them)

`first` and `second` are matrices or convolutions. Removing a unit means slicing every constant on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelserve.optimize.surgery import Graph, attribute, dense_weights

if TYPE_CHECKING:
    from onnx import NodeProto

_ELEMENTWISE = frozenset({
    "Relu", "Gelu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "HardSigmoid",
    "HardSwish", "Mish", "Swish", "Erf", "Identity", "Dropout", "Clip", "Abs", "Neg", "Exp", "Sqrt", "ThresholdedRelu",
    "Cast",
})  # fmt: skip
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"})
_SHAPES = frozenset({"Flatten", "Reshape", "Squeeze"})


@dataclass(slots=True)
class Chain:
    """One place.

    Attributes:
        value: What flows into `second`.
        per_unit: Constants with one entry for each unit, and their axis.
        targets: Shape constants of Reshape that name the number of units (axis 1 of convolutions).
        columns: How many of `second`'s inputs one unit makes; they lie side by side.
    """

    first: NodeProto
    units: int
    value: str = ""
    second: NodeProto | None = None
    columns: int = 1
    per_unit: list[tuple[str, int]] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)


def chains(graph: Graph) -> Iterator[Chain]:
    """All places in the order of the graph."""
    for node in graph.nodes:
        if graph.is_dense(node) or graph.is_convolution(node):
            found = _follow(graph, node)
            if found is not None:
                yield found


def _follow(graph: Graph, first: NodeProto) -> Chain | None:
    is_dense = graph.is_dense(first)
    units = dense_weights(graph, first).shape[1] if is_dense else int(graph.constants[first.input[1]].dims[0])
    chain = Chain(first, units)
    if len(first.input) > 2 and first.input[2] and not _take_constant(graph, chain, first.input[2], is_dense=True):
        return None
    region = {first.output[0]}
    waiting = [first.output[0]]
    while waiting:
        value = waiting.pop()
        if value in graph.outputs:
            return None
        for node in graph.consumers[value]:
            if _ends(graph, chain, node, value):
                if chain.second is not None and chain.second is not node:
                    return None
                chain.second, chain.value = node, value
            elif not _passes(graph, chain, node, is_dense=is_dense):
                return None
            elif node.output[0] not in region:
                region.add(node.output[0])
                waiting.append(node.output[0])
    return chain if chain.second is not None and _is_closed(graph, chain, region, first) else None


def _ends(graph: Graph, chain: Chain, node: NodeProto, value: str) -> bool:
    if list(node.input).count(value) != 1 or node.input[0] != value:
        return False
    if graph.is_convolution(node):
        # Dilated windows would need another way of cutting the input into patches.
        taken = int(graph.constants[node.input[1]].dims[1])
        dilations: set[int] = set(attribute(node, "dilations", [1]))
        return chain.units == taken and dilations == {1}
    if graph.is_dense(node):
        taken = dense_weights(graph, node).shape[0]
        chain.columns = taken // chain.units
        return bool(taken % chain.units == 0)
    return False


def _passes(graph: Graph, chain: Chain, node: NodeProto, *, is_dense: bool) -> bool:
    """Whether units stay apart in this node; notes the constants that it has for each."""
    if node.domain not in {"", "ai.onnx"} or len([name for name in node.output if name]) != 1:
        return False
    if node.op_type in _ELEMENTWISE:
        return True
    if node.op_type in _BINARY:
        constants = [name for name in node.input if name in graph.constants]
        return all(_take_constant(graph, chain, name, is_dense=is_dense) for name in constants)
    if is_dense:
        return False
    if node.op_type == "BatchNormalization":
        return all(_take_constant(graph, chain, name, is_dense=True) for name in node.input[1:])
    if node.op_type in _SHAPES:
        return _keeps_units_outermost(graph, chain, node)
    return node.op_type in _POOLS and _pools_space_only(graph, node)


def _take_constant(graph: Graph, chain: Chain, name: str, *, is_dense: bool) -> bool:
    if name not in graph.constants:
        return False
    dims = list(graph.constants[name].dims)
    if all(size == 1 for size in dims):
        return True
    axis = len(dims) - (1 if is_dense else 3)
    if axis < 0 or dims[axis] != chain.units or any(size != 1 for i, size in enumerate(dims) if i != axis):
        return False
    if (name, axis) not in chain.per_unit:
        chain.per_unit.append((name, axis))
    return graph.is_own(name)


def _keeps_units_outermost(graph: Graph, chain: Chain, node: NodeProto) -> bool:
    if node.op_type == "Flatten":
        return bool(attribute(node, "axis", 1) == 1)
    if node.op_type == "Squeeze":
        return True
    if not graph.is_own(node.input[1]):
        return False
    target = [int(size) for size in graph.array(node.input[1])]
    if len(target) < 2 or target[0] not in {0, -1}:
        return False
    if target[1] > 0:
        if target[1] % chain.units:
            return False
        chain.targets.append(node.input[1])
    return True


def _pools_space_only(graph: Graph, node: NodeProto) -> bool:
    if node.op_type != "ReduceMean":
        return True
    axes = attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1] in graph.constants:
        axes = [int(axis) for axis in graph.array(node.input[1])]
    return axes is not None and set(axes) <= {2, 3, -1, -2}


def _is_closed(graph: Graph, chain: Chain, region: set[str], first: NodeProto) -> bool:
    """Whether nothing but the units and constants flows in on the way."""
    made = {name for node in graph.nodes if node is not first for name in node.output if name in region}
    inside = [node for node in graph.nodes if node is not first and set(node.output) & made]
    return all(not name or name in region or name in graph.constants for node in inside for name in node.input)
