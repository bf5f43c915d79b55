"""Unstructured pruning: weights of small magnitude become zero.

It makes the compressed file smaller and nothing else: onnxruntime's kernels were measured at exactly the same speed.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Pass
from modelserve.optimize.int8 import refuse_quantized
from modelserve.optimize.surgery import Graph, attribute, tidy
from modelserve.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto


def by_magnitude(amount: float) -> Pass:
    """Zero the share `amount` of all weights, the smallest of the whole model."""

    def change(draft: Draft, _calibration: Calibration) -> Draft:
        model, graph, names = _weights(draft)
        magnitudes = np.concatenate([np.abs(graph.array(name)).ravel() for name in names])
        threshold = np.quantile(magnitudes, amount)
        for name in names:
            array = graph.array(name)
            graph.put(name, np.where(np.abs(array) <= threshold, np.float32(0), array))
        tidy(model)
        return Draft(model, draft.session)

    return Pass("prune", change, {"amount": amount, "structured": False})


def by_pattern(pattern: str) -> Pass:
    """N:M sparsity: of each M weights along a layer's inputs the N largest stay."""
    stay, of = (int(part) for part in pattern.split(":"))

    def change(draft: Draft, _calibration: Calibration) -> Draft:
        model, graph, names = _weights(draft)
        for name in names:
            array = graph.array(name)
            axis = _input_axis(graph, name)
            turned = np.moveaxis(array, axis, -1)
            graph.put(name, np.moveaxis(_masked(turned, stay, of), -1, axis))
        tidy(model)
        return Draft(model, draft.session)

    return Pass("prune", change, {"pattern": pattern, "structured": False})


def compressed_bytes(draft: Draft) -> int:
    """The size of the model as a file that is compressed for its way (deflate)."""
    return len(zlib.compress(draft.model.SerializeToString()))


def _weights(draft: Draft) -> tuple[ModelProto, Graph, list[str]]:
    refuse_quantized(draft.model)
    model = draft.copy_model()
    graph = Graph(model)
    names = [node.input[1] for node in graph.nodes if graph.is_dense(node) or graph.is_convolution(node)]
    if not names:
        raise InapplicableError("The graph has no matrix and no convolution to prune.")
    return model, graph, names


def _input_axis(graph: Graph, name: str) -> int:
    node = graph.consumers[name][0]
    is_turned = node.op_type == "Conv" or attribute(node, "transB", 0)
    return 1 if is_turned else 0


def _masked(array: Array, stay: int, of: int) -> Array:
    whole = array.shape[-1] // of * of
    groups = array[..., :whole].reshape(*array.shape[:-1], -1, of)
    ranks = np.abs(groups).argsort(axis=-1, kind="stable").argsort(axis=-1)
    kept = np.where(ranks >= of - stay, groups, np.float32(0))
    return np.concatenate([kept.reshape(*array.shape[:-1], whole), array[..., whole:]], axis=-1)
