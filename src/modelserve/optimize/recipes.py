"""From plans to passes, and the candidates that `Auto` tries.

operators of the graph ──► families of recipes, gentle ones first, cheap families first
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modelserve.errors import PlanError
from modelserve.optimize.draft import Memory, Pass
from modelserve.optimize.half import bfloat16, float16
from modelserve.optimize.int8 import int8_dynamic, int8_static
from modelserve.optimize.machine import has_bfloat16, has_half_precision, has_integer_dot_products
from modelserve.optimize.mixed import int8_mixed, int8_mixed_static
from modelserve.optimize.plan import Compact, Fuse, Goal, Plan, Precision, Prune, Quantize, Ranges
from modelserve.optimize.share import has_equal_weights, share_weights
from modelserve.optimize.simplify import simplify, without_skip_layer_norm_fusion
from modelserve.optimize.smooth import smooth
from modelserve.optimize.sparse import by_magnitude, by_pattern
from modelserve.optimize.stored import stored_as_int8
from modelserve.optimize.structured import Survey, structured
from modelserve.optimize.surgery import Graph, operators
from modelserve.optimize.trees_compact import compact_trees
from modelserve.optimize.trees_drop import drop_trees
from modelserve.optimize.weight_only import weights_only

if TYPE_CHECKING:
    from onnx import ModelProto

_TREES_GONE = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 4 / 5, 5 / 6, 11 / 12)
_UNITS_GONE = (0.125, 0.25, 0.375, 0.5, 0.625, 0.6875, 0.75, 0.8125, 0.875, 0.9375)
_LAYERS_WIDE = (4, 12)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Passes in order. Within a family each is bolder than the one before."""

    name: str
    passes: tuple[Pass, ...]
    family: str = ""

    @property
    def is_exact(self) -> bool:
        return all(step.is_exact for step in self.passes)

    @property
    def deciding(self) -> Pass:
        """The pass that the recipe is about: the last one, sharing aside."""
        return next(step for step in reversed(self.passes) if step.name != "share" or len(self.passes) == 1)

    def key(self, count: int) -> str:
        """Names what the first `count` passes make."""
        return json.dumps([(step.name, dict(step.settings)) for step in self.passes[:count]], sort_keys=True)


def recipe_of(plans: Sequence[Plan], model: ModelProto) -> Recipe:
    """The passes of an explicit plan on this model."""
    passes: list[Pass] = []
    for plan in plans:
        for step in _passes(plan, model):
            if all(step.name != "simplify" or done.name != "simplify" for done in passes):
                passes.append(step)
    return Recipe(" >> ".join(type(plan).__name__ for plan in plans), tuple(passes))


def candidates(model: ModelProto, goal: Goal, *, exact_only: bool) -> Iterator[Recipe]:
    """What is worth trying on this model and machine."""
    last = (share_weights(),) if has_equal_weights(model) else ()
    for recipe in (*_exact(model), *(() if exact_only else _bounded(model, goal))):
        yield replace(recipe, passes=(*recipe.passes, *last))


def _exact(model: ModelProto) -> Iterator[Recipe]:
    if _has_trees(model):
        yield Recipe("compact trees", (compact_trees(),))
    if _has_layers(model):
        yield Recipe("simplify", (simplify(),))
        yield Recipe("simplify, no SkipLayerNorm fusion", (simplify(), without_skip_layer_norm_fusion()))


def _bounded(model: ModelProto, goal: Goal) -> Iterator[Recipe]:
    if _has_trees(model):
        for gone in _TREES_GONE:
            yield Recipe(f"drop {gone:.0%} of the trees", (compact_trees(), drop_trees(gone)), "trees")
    if _has_layers(model):
        yield from _of_layers(model, goal)


def _of_layers(model: ModelProto, goal: Goal) -> Iterator[Recipe]:
    """The quick ones first, then those that scan the model, then pruning."""
    convolves = _convolves(model)
    base = (simplify(), *((without_skip_layer_norm_fusion(),) if _is_transformer(model) else ()))
    integers = _integers(model)
    for name, steps in integers:
        yield Recipe(name, (*base, *steps))
    yield Recipe("int8 stored", (*base, stored_as_int8()))
    if not convolves:
        yield Recipe("int8 weights", (*base, weights_only(8)), "weights")
        yield Recipe("int4 weights", (*base, weights_only(4)), "weights")
    if goal is Goal.SIZE or has_half_precision():
        yield Recipe("float16", (*base, float16()))
    if has_bfloat16():
        yield Recipe("bfloat16", (*base, bfloat16()))
    for name, step in _mixed(model):
        yield Recipe(name, (*base, step))
    surveys: Memory[Survey] = Memory()
    for gone in _UNITS_GONE:
        pruned = (*base, structured(gone, surveys))
        yield Recipe(f"prune {gone:.1%}", pruned, "units")
        yield Recipe(f"prune {gone:.1%}, {integers[0][0]}", (*pruned, *integers[0][1]), "units, int8")
    for ranges in (Ranges.PERCENTILE, Ranges.ENTROPY) if convolves else ():
        yield Recipe(f"int8 static, {ranges.value}", (*base, int8_static(ranges)))


def _integers(model: ModelProto) -> list[tuple[str, tuple[Pass, ...]]]:
    static, dynamic = ("int8 static", (int8_static(),)), ("int8 dynamic", (int8_dynamic(),))
    # Where signed weights have 7 bits only, unsigned ones are slower and closer.
    unsigned = int8_dynamic(signed=False)
    is_lossy = not has_integer_dot_products()
    if _convolves(model):
        return [static]
    if _is_transformer(model):
        # Static ranges were measured useless on transformers (cosine 0.93 against 0.99).
        smooth_too = [("uint8 dynamic, smooth", (smooth(), unsigned))] if is_lossy else []
        return [("int8 dynamic, smooth", (smooth(), int8_dynamic())), dynamic, *smooth_too]
    return [static, dynamic, *([("uint8 dynamic", (unsigned,))] if is_lossy else [])]


def _mixed(model: ModelProto) -> Iterator[tuple[str, Pass]]:
    if not _is_transformer(model):
        yield "int8 static, 1 layer wide", int8_mixed_static(1)
        return
    scans: Memory[list[str]] = Memory()
    signed = has_integer_dot_products()
    for wide in _LAYERS_WIDE:
        step = int8_mixed(wide, signed=signed, smoothes=True, scans=scans)
        yield f"{'int8' if signed else 'uint8'} dynamic, smooth, {wide} layers wide", step


def _passes(plan: Plan, model: ModelProto) -> list[Pass]:
    match plan:
        case Fuse():
            switches = [without_skip_layer_norm_fusion()] if plan.skip_layer_norm_fusion else []
            return [simplify(), *switches, *([share_weights()] if has_equal_weights(model) else [])]
        case Compact():
            return [compact_trees()]
        case Prune(pattern=str() as pattern):
            return [simplify(), by_pattern(pattern)]
        case Prune(amount=float() | int() as amount):
            if _has_trees(model):
                return [drop_trees(float(amount))]
            return [simplify(), structured(float(amount)) if plan.structured else by_magnitude(float(amount))]
        case Quantize():
            return [simplify(), *_quantization(plan, model)]
    raise PlanError(f"{plan} cannot be part of an explicit plan.")


def _quantization(plan: Quantize, model: ModelProto) -> tuple[Pass, ...]:
    assert isinstance(plan.ranges, Ranges)
    if plan.precision in _OTHER_PRECISIONS:
        return (_OTHER_PRECISIONS[plan.precision](),)
    if plan.precision is Precision.INT8_STATIC or _convolves(model):
        return (int8_mixed_static(plan.keep_wide, plan.ranges) if plan.keep_wide else int8_static(plan.ranges),)
    signed, smoothes = plan.precision is Precision.INT8, _is_transformer(model)
    if plan.keep_wide:
        return (int8_mixed(plan.keep_wide, signed=signed, smoothes=smoothes),)
    return (*((smooth(),) if smoothes else ()), int8_dynamic(signed=signed))


_OTHER_PRECISIONS: Mapping[Precision | str, Callable[[], Pass]] = {
    Precision.INT8_WEIGHTS: lambda: weights_only(8),
    Precision.INT4_WEIGHTS: lambda: weights_only(4),
    Precision.INT8_STORED: stored_as_int8,
    Precision.FLOAT16: float16,
    Precision.BFLOAT16: bfloat16,
}


def _has_layers(model: ModelProto) -> bool:
    graph = Graph(model)
    return any(node.op_type in {"MatMul", "Gemm", "Conv"} for node in graph.nodes)


def _has_trees(model: ModelProto) -> bool:
    return any(name.startswith("TreeEnsemble") for name in operators(model))


def _convolves(model: ModelProto) -> bool:
    return "Conv" in operators(model)


def _is_transformer(model: ModelProto) -> bool:
    return bool({"Softmax", "Attention"} & operators(model).keys()) and _normalizes(model)


def _normalizes(model: ModelProto) -> bool:
    # Exporters below opset 17 write LayerNormalization out as a mean, a variance and a root.
    return bool({"LayerNormalization", "Sqrt"} & operators(model).keys())
