"""8-bit integers in the file, float32 while computing: the runtime widens the weights once, when it loads them.

    weights float32  ──►  int8 constant ── DequantizeLinear, one scale for each output ──► the same layer

A quarter of the size at the speed, and with the memory, of float32; no rounding of activations. For places without fast
integer arithmetic, and for layers that cannot bear it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Pass
from modelserve.optimize.int8 import refuse_quantized
from modelserve.optimize.surgery import Graph, output_axis, replace_nodes, tidy
from modelserve.optimize.weight_only import narrow_tables

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

#: Without it onnxruntime would keep the weights narrow and widen them in every run.
WIDEN_AT_LOAD = {"session.disable_quant_qdq": "1"}
# A small constant gains nothing.
_FROM_WEIGHTS = 256


def stored_as_int8() -> Pass:
    """Store matrices and convolutions as int8, and embedding tables with a scale for each row."""

    def change(draft: Draft, _calibration: Calibration) -> Draft:
        refuse_quantized(draft.model)
        model = draft.copy_model()
        if store_layers(model) + narrow_tables(model) == 0:
            raise InapplicableError("The graph has no matrix, convolution or embedding table to store in 8 bits.")
        tidy(model)
        return Draft(model, {**draft.session, **WIDEN_AT_LOAD})

    return Pass("int8-stored", change, {"session": WIDEN_AT_LOAD})


def store_layers(model: ModelProto, only: Collection[str] | None = None) -> int:
    """Store layers (those named in `only`, or all) in place; how many there were."""
    graph = Graph(model)
    nodes: list[NodeProto] = []
    count = 0
    for node in graph.nodes:
        is_layer = graph.is_dense(node) or graph.is_convolution(node)
        if is_layer and (node.name in only if only is not None else _is_big(graph, node)):
            nodes.append(_widening(graph, node))
            count += 1
        nodes.append(node)
    if count:
        replace_nodes(model, nodes)
    return count


def _is_big(graph: Graph, node: NodeProto) -> bool:
    return int(np.prod(graph.constants[node.input[1]].dims)) >= _FROM_WEIGHTS


def _widening(graph: Graph, node: NodeProto) -> NodeProto:
    """Give the layer's weights 8 bits; the node that widens them."""
    name = node.input[1]
    weights = graph.array(name)
    axis = output_axis(node)
    others = tuple(index for index in range(weights.ndim) if index != axis)
    scales = np.maximum(np.abs(weights).max(axis=others), 1e-12) / 127
    shape = [-1 if index == axis else 1 for index in range(weights.ndim)]
    graph.put(f"{name}_codes", np.rint(weights / scales.reshape(shape)).astype(np.int8))
    graph.put(f"{name}_scales", scales.astype(np.float32))
    graph.put(f"{name}_zero", np.zeros(len(scales), np.int8))
    node.input[1] = f"{name}_wide"
    inputs = [f"{name}_codes", f"{name}_scales", f"{name}_zero"]
    return helper.make_node("DequantizeLinear", inputs, [node.input[1]], axis=axis)
