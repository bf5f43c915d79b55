"""BatchNormalization after a convolution becomes part of its weights; onnxruntime does so only at load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from modelserve.optimize.surgery import Graph, attribute, replace_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def fold_normalisations(model: ModelProto) -> int:
    """Fold in place; how many there were."""
    graph = Graph(model)
    folded: dict[str, str] = {}
    for node in graph.nodes:
        following = graph.consumers[node.output[0]]
        is_alone = len(following) == 1 and node.output[0] not in graph.outputs
        if is_alone and graph.is_convolution(node) and _is_constant(graph, following[0]):
            _fold(graph, node, following[0])
            folded[following[0].output[0]] = node.output[0]
    if folded:
        nodes = [node for node in graph.nodes if node.output[0] not in folded]
        for node in nodes:
            _rename(node, {inner: outer for outer, inner in folded.items()})
        replace_nodes(model, nodes)
    return len(folded)


def _is_constant(graph: Graph, node: NodeProto) -> bool:
    return (
        node.op_type == "BatchNormalization"
        and not attribute(node, "training_mode", 0)
        and all(name in graph.constants for name in node.input[1:])
    )


def _fold(graph: Graph, convolution: NodeProto, normalisation: NodeProto) -> None:
    gain, shift, mean, variance = (graph.array(name).astype(np.float64) for name in normalisation.input[1:5])
    factor = gain / np.sqrt(variance + attribute(normalisation, "epsilon", 1e-5))
    weights = graph.array(convolution.input[1])
    has_bias = len(convolution.input) > 2 and bool(convolution.input[2])
    bias = graph.array(convolution.input[2]) if has_bias else np.zeros(len(weights), np.float32)
    name = f"{convolution.output[0]}_folded_bias"
    graph.put(convolution.input[1], (weights * factor[:, None, None, None]).astype(np.float32))
    graph.put(name, ((bias - mean) * factor + shift).astype(np.float32))
    del convolution.input[2:]
    convolution.input.append(name)


def _rename(node: NodeProto, names: dict[str, str]) -> None:
    # The convolution now makes what the normalisation made.
    node.output[0] = names.get(node.output[0], node.output[0])
