"""Mixed precision: a scan finds the layers that 8 bits hurt most, and those stay wider.

one graph in which every layer can be switched to 8 bits ──► each alone, see how far the output moves ──► an order

matrices       the worst keep float32 or 8-bit weights with wider arithmetic; the others are quantised dynamically
convolutions   the worst stay float32; the others are quantised statically
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from modelserve.errors import PlanError
from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Memory, Pass
from modelserve.optimize.int8 import dense_layers, quantize_statically, quantized, refuse_quantized, weight_bits
from modelserve.optimize.machine import has_integer_dot_products
from modelserve.optimize.plan import Ranges
from modelserve.optimize.smooth import smoothed
from modelserve.optimize.stored import WIDEN_AT_LOAD, store_layers
from modelserve.optimize.surgery import Graph, name_nodes, output_axis, replace_nodes, tidy
from modelserve.optimize.weight_only import narrow_layers, narrow_tables
from modelserve.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_ROWS_OF_SCAN = 8
_SWITCHES = "modelserve_switches"


def int8_mixed(
    keep_wide: int, *, signed: bool = True, smoothes: bool = False, scans: Memory[list[str]] | None = None
) -> Pass:
    """Dynamic int8, except for the `keep_wide` most sensitive matrices.

    Args:
        scans: Shared by passes that differ in `keep_wide` only, so that the same model is scanned once.
    """
    memory = Memory[list[str]]() if scans is None else scans
    # 8-bit weights with wider arithmetic are slower than float32 where integers are not multiplied fast.
    is_stored = not has_integer_dot_products()
    bits = weight_bits(signed=signed)

    def change(draft: Draft, calibration: Calibration) -> Draft:
        named = _named(draft)
        layers = dense_layers(named.model)
        _check(layers, calibration, keep_wide)

        def smooth(some: Sequence[str]) -> Draft:
            return Draft(smoothed(named, calibration, some), draft.session) if smoothes else named

        order = memory.of(draft, lambda: sensitivity(smooth(layers), layers, calibration, bits=bits))
        wide, narrow = order[:keep_wide], order[keep_wide:]
        model = quantized(smooth(narrow).model, narrow, signed=signed)
        if is_stored:
            store_layers(model, wide)
        else:
            narrow_layers(model, bits=8, only=frozenset(wide))
        narrow_tables(model)
        tidy(model)
        return Draft(model, {**draft.session, **(WIDEN_AT_LOAD if is_stored else {})})

    settings = {"keep_wide": keep_wide, "signed": signed, "smooth": smoothes, "weight_bits": bits}
    return Pass("int8-mixed", change, {**settings, "session": WIDEN_AT_LOAD} if is_stored else settings)


def int8_mixed_static(keep_wide: int, ranges: Ranges = Ranges.MINMAX) -> Pass:
    """Static int8, except for the `keep_wide` most sensitive matrices and convolutions, which stay float32."""

    def change(draft: Draft, calibration: Calibration) -> Draft:
        refuse_quantized(draft.model)
        draft = _named(draft)
        graph = Graph(draft.model)
        layers = [node.name for node in graph.nodes if graph.is_dense(node) or graph.is_convolution(node)]
        _check(layers, calibration, keep_wide)
        order = sensitivity(draft, layers, calibration, bits=weight_bits(signed=True))
        return quantize_statically(draft, calibration, ranges, wide=order[:keep_wide])

    bits = weight_bits(signed=True)
    return Pass("int8-mixed", change, {"keep_wide": keep_wide, "ranges": ranges.value, "weight_bits": bits})


def sensitivity(draft: Draft, layers: Sequence[str], calibration: Calibration, *, bits: int) -> list[str]:
    """The layers, those first whose quantisation alone moves the outputs most.

    Args:
        bits: Of the weights; activations have 8, with a range for each run.
    """
    model = _switchable(draft, layers, bits)
    session = Draft(model, draft.session).load()
    names = [value.name for value in model.graph.output]
    batch = {name: array[:_ROWS_OF_SCAN] for name, array in calibration[0].items()}

    def answer(index: int | None) -> list[Array]:
        switches = np.zeros(len(layers), bool)
        if index is not None:
            switches[index] = True
        return _numbers(session.run(names, {**batch, _SWITCHES: switches}))

    wanted = answer(None)
    moved = [_distance(wanted, answer(index)) for index in range(len(layers))]
    return [layers[index] for index in np.argsort(-np.array(moved), kind="stable")]


def _named(draft: Draft) -> Draft:
    model = draft.copy_model()
    name_nodes(model)
    return Draft(model, draft.session)


def _check(layers: list[str], calibration: Calibration, keep_wide: int) -> None:
    if not calibration:
        raise PlanError("Which layers are sensitive is found on samples, of which there are none. Give samples=.")
    if len(layers) <= keep_wide:
        raise InapplicableError(f"The graph has {len(layers)} layers; {keep_wide} of them cannot stay wider.")


def _switchable(draft: Draft, layers: Sequence[str], bits: int) -> ModelProto:
    """The graph with every layer twice, in float32 and in 8 bits, and an input that says which of the two counts."""
    model = draft.copy_model()
    graph = Graph(model)
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        nodes += _both(graph, node, layers.index(node.name), bits) if node.name in layers else [node]
    replace_nodes(model, nodes)
    model.graph.input.append(helper.make_tensor_value_info(_SWITCHES, TensorProto.BOOL, [len(layers)]))
    tidy(model)
    return model


def _both(graph: Graph, node: NodeProto, index: int, bits: int) -> list[NodeProto]:
    made, value, weights = node.output[0], node.input[0], node.input[1]
    stem = f"modelserve_{index}"
    graph.put(f"{stem}_weights", _rounded(graph.array(weights), bits, axis=output_axis(node)))
    graph.put(f"{stem}_index", np.array(index))
    narrow = type(node).FromString(node.SerializeToString())
    narrow.input[0], narrow.input[1], narrow.output[0] = f"{stem}_value", f"{stem}_weights", f"{stem}_narrow"
    node.output[0] = f"{stem}_wide"
    codes = [f"{stem}_{part}" for part in ("codes", "scale", "zero")]
    return [
        node,
        helper.make_node("DynamicQuantizeLinear", [value], codes),
        helper.make_node("DequantizeLinear", codes, [f"{stem}_value"]),
        narrow,
        helper.make_node("Gather", [_SWITCHES, f"{stem}_index"], [f"{stem}_switch"]),
        helper.make_node("Where", [f"{stem}_switch", f"{stem}_narrow", f"{stem}_wide"], [made]),
    ]


def _rounded(weights: Array, bits: int, *, axis: int) -> Array:
    """Weights as they are after so many bits, with a scale for each output."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    most = (1 << (bits - 1)) - 1
    scales = np.maximum(np.abs(weights).max(axis=others, keepdims=True), 1e-12) / most
    return np.asarray(np.rint(weights / scales) * scales).astype(np.float32)


def _numbers(answers: Sequence[Array]) -> list[Array]:
    return [array for array in answers if getattr(array, "dtype", np.dtype(object)).kind == "f"]


def _distance(wanted: Sequence[Array], got: Sequence[Array]) -> float:
    return sum(float(np.square(a - b).mean() / max(float(a.var()), 1e-12)) for a, b in zip(wanted, got, strict=True))
