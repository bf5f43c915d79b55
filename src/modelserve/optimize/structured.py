"""Structured pruning: units, channels and feed-forward units that are really removed, without labels or training.

    every place:            what flows into `second` ──► in which order its units can go, and what that costs
    all places together:    so many units in all, where they cost least
    place by place:         what flowed into `second`, what flows now ──► slice ──► least squares for `second`

Later places are solved with what the pruned layers before them give, so that errors do not add up.
Attention heads stay: no way to remove them was found that keeps the accuracy without training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from modelserve.errors import PlanError
from modelserve.optimize.chains import Chain, chains
from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Memory, Pass
from modelserve.optimize.int8 import refuse_quantized
from modelserve.optimize.least_squares import Elimination, allocate, eliminate, expand, solve
from modelserve.optimize.surgery import Graph, activations, attribute, dense_weights, put_dense_weights, tidy
from modelserve.tensors import Array

if TYPE_CHECKING:
    from onnx import NodeProto

# Widths that fill the vector registers.
_MULTIPLE = 8
_MOST_ROWS = 16_000


class _Moments(NamedTuple):
    """Second moments of the next layer's inputs, and their means; `old` as they were, `new` as they are now."""

    new_gram: Array
    cross: Array
    old_mean: Array
    new_mean: Array


class Survey(NamedTuple):
    """What is known before anything is removed: for each place its next layer's inputs, and how its units can go."""

    designs: dict[str, Array]
    eliminations: list[Elimination]


def structured(amount: float, surveys: Memory[Survey] | None = None) -> Pass:
    """Remove the share `amount` of the units of all places that the graph has, where that costs least.

    Args:
        surveys: Shared by passes of several amounts, so that the same model is surveyed once.
    """
    memory = Memory[Survey]() if surveys is None else surveys

    def change(draft: Draft, calibration: Calibration) -> Draft:
        refuse_quantized(draft.model)
        if not calibration:
            raise PlanError("Structured pruning looks at what flows through the model. Give samples=.")
        model = draft.copy_model()
        graph = Graph(model)
        places = list(chains(graph))
        goal = _units_kept([chain.units for chain in places], amount)
        if not places or goal >= sum(chain.units for chain in places):
            raise InapplicableError("The graph has no two matrices or convolutions with units to spare between them.")
        before, eliminations = memory.of(draft, lambda: _survey(draft, graph, places, calibration))
        kept = allocate(eliminations, [chain.units for chain in places], goal, multiple=_MULTIPLE)
        for chain, elimination, count in zip(places, eliminations, kept, strict=True):
            if count == chain.units:
                continue
            # The first place still sees what it saw before.
            now = before if chain is places[0] else _designs(Draft(model), graph, [chain], calibration)
            _prune(graph, chain, elimination.kept(count), before[chain.value], now[chain.value])
        tidy(model)
        return Draft(model, draft.session)

    return Pass("prune", change, {"amount": amount, "structured": True})


def _units_kept(units: list[int], amount: float) -> int:
    """How many units stay in all: whole multiples, and at least one of them in each place that has more."""
    fewest = sum(min(count, _MULTIPLE) for count in units)
    return max(fewest, round(sum(units) * (1 - amount)))


def _survey(draft: Draft, graph: Graph, places: list[Chain], calibration: Calibration) -> Survey:
    designs = _designs(draft, graph, places, calibration)
    return Survey(designs, [_elimination(graph, chain, designs[chain.value].astype(np.float64)) for chain in places])


def _elimination(graph: Graph, chain: Chain, design: Array) -> Elimination:
    assert chain.second is not None
    weights = _inputs_by_outputs(graph, chain.second)
    if _bias(graph, chain.second) is not None:
        design = design - design.mean(axis=0)
    return eliminate(design.T @ design / len(design), weights, columns=weights.shape[0] // chain.units)


def _prune(graph: Graph, chain: Chain, kept: Array, before: Array, now: Array) -> None:
    assert chain.second is not None
    second = chain.second
    weights = _inputs_by_outputs(graph, second)
    bias = _bias(graph, second)
    moments = _moments(before.astype(np.float64), now.astype(np.float64), centred=bias is not None)
    rows = expand(kept, weights.shape[0] // chain.units)
    solved = solve(moments.new_gram[np.ix_(rows, rows)], moments.cross[rows], weights)
    if bias is not None:
        moved = moments.old_mean @ weights - moments.new_mean[rows] @ solved
        graph.put(bias, (graph.array(bias) + moved.reshape(_like(graph.array(bias)))).astype(np.float32))
    _put_inputs_by_outputs(graph, second, solved, len(kept))
    _slice(graph, chain, kept)


def _like(array: Array) -> tuple[int, ...]:
    return (*(1 for _ in array.shape[:-1]), -1)


def _designs(draft: Draft, graph: Graph, places: list[Chain], calibration: Calibration) -> dict[str, Array]:
    """What each place's next layer multiplies by its weights, one row for each product; always the same rows."""
    seconds = {chain.value: chain.second for chain in places if chain.second is not None}
    most = -(-_MOST_ROWS // len(calibration))

    def part(name: str, array: Array) -> Array:
        node = seconds[name]
        rows = _patches(graph, node, array) if node.op_type == "Conv" else array.reshape(-1, array.shape[-1])
        return rows if len(rows) <= most else rows[np.random.default_rng(0).permutation(len(rows))[:most]]

    found = activations(draft, list(seconds), calibration, part=part)
    return {name: np.concatenate(parts) for name, parts in found.items()}


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
    return _Moments(new.T @ new / count, new.T @ old / count, old_mean, new_mean)


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
