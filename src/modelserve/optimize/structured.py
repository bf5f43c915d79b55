"""Structured pruning: units, channels and feed-forward units that are really removed, without labels or training.

    chain by chain, from the input on:
        what flowed into `second` before, what flows now ──► units to keep ──► slice ──► least squares for `second`

Later chains are solved with what the pruned layers before them give, so that errors do not add up.
Attention heads stay: no way to remove them was found that keeps the accuracy without training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from modelserve.errors import PlanError
from modelserve.optimize.chains import Chain, chains
from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Pass
from modelserve.optimize.int8 import refuse_quantized
from modelserve.optimize.least_squares import expand, kept_units, solve
from modelserve.optimize.surgery import Graph, activations, attribute, dense_weights, put_dense_weights, tidy
from modelserve.tensors import Array

if TYPE_CHECKING:
    from onnx import NodeProto

# Widths that fill the vector registers.
_MULTIPLE = 8
_MOST_ROWS = 16_000


class _Moments(NamedTuple):
    """Second moments of the next layer's inputs, and their means; `old` as they were, `new` as they are now."""

    old_gram: Array
    new_gram: Array
    cross: Array
    old_mean: Array
    new_mean: Array


def structured(amount: float) -> Pass:
    """Remove the share `amount` of the units of every place that the graph has."""

    def change(draft: Draft, calibration: Calibration) -> Draft:
        refuse_quantized(draft.model)
        if not calibration:
            raise PlanError("Structured pruning looks at what flows through the model. Give samples=.")
        model = draft.copy_model()
        graph = Graph(model)
        places = [chain for chain in chains(graph) if _kept_count(chain.units, amount) < chain.units]
        if not places:
            raise InapplicableError("The graph has no two matrices or convolutions with only units between them.")
        before = activations(draft, [chain.value for chain in places], calibration)
        for chain in places:
            # The first place still sees what it saw before.
            now = before if chain is places[0] else activations(Draft(model), [chain.value], calibration)
            _prune(graph, chain, amount, before[chain.value], now[chain.value])
        tidy(model)
        return Draft(model, draft.session)

    return Pass("prune", change, {"amount": amount, "structured": True})


def _kept_count(units: int, amount: float) -> int:
    keep = max(1, round(units * (1 - amount)))
    return max(_MULTIPLE, keep // _MULTIPLE * _MULTIPLE) if units > _MULTIPLE else keep


def _prune(graph: Graph, chain: Chain, amount: float, before: list[Array], now: list[Array]) -> None:
    assert chain.second is not None
    second = chain.second
    weights = _inputs_by_outputs(graph, second)
    columns = weights.shape[0] // chain.units
    bias = _bias(graph, second)
    moments = _moments(_design(graph, second, before), _design(graph, second, now), centred=bias is not None)
    kept = kept_units(moments.old_gram, weights, columns=columns, keep=_kept_count(chain.units, amount))
    rows = expand(kept, columns)
    solved = solve(moments.new_gram[np.ix_(rows, rows)], moments.cross[rows], weights)
    if bias is not None:
        moved = moments.old_mean @ weights - moments.new_mean[rows] @ solved
        graph.put(bias, (graph.array(bias) + moved.reshape(_like(graph.array(bias)))).astype(np.float32))
    _put_inputs_by_outputs(graph, second, solved, len(kept))
    _slice(graph, chain, kept)


def _like(array: Array) -> tuple[int, ...]:
    return (*(1 for _ in array.shape[:-1]), -1)


def _design(graph: Graph, second: NodeProto, batches: list[Array]) -> Array:
    """What `second` multiplies by its weights, one row for each product; the same rows whenever it is called."""
    if second.op_type == "Conv":
        rows = np.concatenate([_patches(graph, second, batch) for batch in batches])
    else:
        rows = np.concatenate([batch.reshape(-1, batch.shape[-1]) for batch in batches])
    if len(rows) > _MOST_ROWS:
        rows = rows[np.random.default_rng(0).permutation(len(rows))[:_MOST_ROWS]]
    return rows.astype(np.float64)


def _patches(graph: Graph, node: NodeProto, array: Array) -> Array:
    height, width = graph.constants[node.input[1]].dims[2:]
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    down, across = attribute(node, "strides", [1, 1])
    padded = np.pad(array, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))[:, :, ::down, ::across]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, array.shape[1] * height * width)


def _moments(old: Array, new: Array, *, centred: bool) -> _Moments:
    old_mean, new_mean = old.mean(axis=0), new.mean(axis=0)
    if centred:
        old, new = old - old_mean, new - new_mean
    count = len(old)
    old_gram = old.T @ old / count
    if old is new:
        return _Moments(old_gram, old_gram, old_gram, old_mean, new_mean)
    return _Moments(old_gram, new.T @ new / count, new.T @ old / count, old_mean, new_mean)


def _bias(graph: Graph, node: NodeProto) -> str | None:
    """The constant added to the outputs, where it is this layer's own."""
    name = node.input[2] if len(node.input) > 2 and node.input[2] else _added_next(graph, node)
    if name and graph.is_own(name) and max(graph.constants[name].dims, default=1) > 1:
        return str(name)
    return None


def _added_next(graph: Graph, node: NodeProto) -> str:
    following = graph.consumers[node.output[0]]
    if node.op_type != "MatMul" or len(following) != 1 or following[0].op_type != "Add":
        return ""
    constants = [name for name in following[0].input if name in graph.constants]
    return constants[0] if constants else ""


def _inputs_by_outputs(graph: Graph, node: NodeProto) -> Array:
    if node.op_type == "Conv":
        weights = graph.array(node.input[1])
        return weights.reshape(weights.shape[0], -1).T.astype(np.float64)
    return dense_weights(graph, node).astype(np.float64)


def _put_inputs_by_outputs(graph: Graph, node: NodeProto, weights: Array, units: int) -> None:
    if node.op_type == "Conv":
        outputs, _, height, width = graph.constants[node.input[1]].dims
        graph.put(node.input[1], weights.T.reshape(outputs, units, height, width).astype(np.float32))
    else:
        put_dense_weights(graph, node, weights)


def _slice(graph: Graph, chain: Chain, kept: Array) -> None:
    first = chain.first
    if first.op_type == "Conv":
        graph.put(first.input[1], graph.array(first.input[1])[kept])
    else:
        put_dense_weights(graph, first, dense_weights(graph, first)[:, kept])
    for name, axis in chain.per_unit:
        graph.put(name, graph.array(name).take(kept, axis=axis))
    for name in chain.targets:
        shape = graph.array(name).copy()
        shape[1] = shape[1] // chain.units * len(kept)
        graph.put(name, shape)
