"""Smoothing: before 8 bits, outlying channels of a matrix's input become smaller and its weights larger.

    x · W  =  (x / s) · (s · W)        s = a^strength / w^(1 - strength), from a channel's largest magnitudes in x and W

An activation has one range for all its channels, so that a few outlying ones take the precision of the others; weights
have a range for each output. The function stays the same (G. Xiao et al., SmoothQuant, 2023). Matrices that take the
same value share the factors, and one multiplication.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from modelserve.errors import PlanError
from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Pass
from modelserve.optimize.int8 import dense_layers
from modelserve.optimize.surgery import Graph, activations, dense_weights, put_dense_weights, replace_nodes, tidy
from modelserve.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Of 0.3 to 0.9 the best on a sentence-embedding model; 0.5, which suits large language models, was worse than none.
_STRENGTH = 0.8
_SMALLEST = 1e-5


def smooth() -> Pass:
    """Smooth what flows into every matrix."""

    def change(draft: Draft, calibration: Calibration) -> Draft:
        layers = dense_layers(draft.model)
        if not layers:
            raise InapplicableError("The graph has no matrix whose input could be smoothed.")
        model = smoothed(draft, calibration, layers)
        tidy(model)
        return Draft(model, draft.session)

    return Pass("smooth", change, {"strength": _STRENGTH}, is_exact=True)


def smoothed(draft: Draft, calibration: Calibration, layers: Collection[str]) -> ModelProto:
    """A copy of the graph in which what flows into the named layers is smooth; its nodes keep their names.

    Raises:
        PlanError: there are no samples.
    """
    if not calibration:
        raise PlanError("Smoothing looks at what flows through the model. Give samples=.")
    model = draft.copy_model()
    graph = Graph(model)
    users: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        if node.name in layers and graph.is_dense(node):
            users.setdefault(node.input[0], []).append(node)
    largest = _largest(activations(draft, list(users), calibration))
    factors = {name: _factors(graph, nodes, largest[name]) for name, nodes in users.items()}
    for name, nodes in users.items():
        graph.put(f"{name}_smoothing", 1 / factors[name])
        for node in nodes:
            put_dense_weights(graph, node, dense_weights(graph, node) * factors[name][:, None])
    replace_nodes(model, _multiplied(graph, users))
    return model


def _largest(values: dict[str, list[Array]]) -> dict[str, Array]:
    """The largest magnitude of each channel."""
    return {
        name: np.max([np.abs(batch).reshape(-1, batch.shape[-1]).max(axis=0) for batch in batches], axis=0)
        for name, batches in values.items()
    }


def _factors(graph: Graph, nodes: list[NodeProto], inputs: Array) -> Array:
    weights = np.max([np.abs(dense_weights(graph, node)).max(axis=1) for node in nodes], axis=0)
    raw = np.maximum(inputs, _SMALLEST) ** _STRENGTH / np.maximum(weights, _SMALLEST) ** (1 - _STRENGTH)
    # About 1 in the mean, so that no magnitude leaves the range of float32.
    return np.asarray(raw / np.exp(np.log(raw).mean())).astype(np.float32)


def _multiplied(graph: Graph, users: dict[str, list[NodeProto]]) -> list[NodeProto]:
    """All nodes, with a multiplication before the first user of each value."""
    of_node = {node.name: name for name, nodes in users.items() for node in nodes}
    nodes: list[NodeProto] = []
    made: set[str] = set()
    for node in graph.nodes:
        name = of_node.get(node.name)
        if name is not None:
            if name not in made:
                nodes.append(helper.make_node("Mul", [name, f"{name}_smoothing"], [f"{name}_smooth"]))
                made.add(name)
            node.input[0] = f"{name}_smooth"
        nodes.append(node)
    return nodes
