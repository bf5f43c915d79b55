"""From plans to passes, and the candidates that `Auto` tries.

operators of the graph ──► families of recipes, gentle ones first, cheap families first
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelserve.errors import PlanError
from modelserve.optimize.draft import Pass
from modelserve.optimize.half import bfloat16, float16
from modelserve.optimize.int8 import int8_dynamic, int8_static
from modelserve.optimize.machine import has_half_precision
from modelserve.optimize.mixed import int8_mixed
from modelserve.optimize.plan import Compact, Fuse, Goal, Plan, Precision, Prune, Quantize, Ranges
from modelserve.optimize.simplify import simplify, without_skip_layer_norm_fusion
from modelserve.optimize.sparse import by_magnitude, by_pattern
from modelserve.optimize.structured import structured
from modelserve.optimize.surgery import Graph, operators
from modelserve.optimize.trees_compact import compact_trees
from modelserve.optimize.trees_drop import drop_trees
from modelserve.optimize.weight_only import weights_only

if TYPE_CHECKING:
    from onnx import ModelProto

_TREES_GONE = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 5 / 6, 11 / 12)
_UNITS_GONE = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
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
    kinds = operators(model)
    has_trees = any(name.startswith("TreeEnsemble") for name in kinds)
    if has_trees:
        yield Recipe("compact trees", (compact_trees(),))
    if _has_layers(model):
        yield Recipe("simplify", (simplify(),))
        yield Recipe("simplify, no SkipLayerNorm fusion", (simplify(), without_skip_layer_norm_fusion()))
    if exact_only:
        return
    if has_trees:
        for gone in _TREES_GONE:
            yield Recipe(f"drop {gone:.0%} of the trees", (compact_trees(), drop_trees(gone)), "trees")
    if _has_layers(model):
        yield from _of_layers(model, goal)


def _of_layers(model: ModelProto, goal: Goal) -> Iterator[Recipe]:
    convolves = "Conv" in operators(model)
    is_transformer = bool({"Softmax", "Attention"} & operators(model).keys()) and _normalizes(model)
    base = (simplify(), *((without_skip_layer_norm_fusion(),) if is_transformer else ()))
    integers = _integers(convolves=convolves, is_transformer=is_transformer)
    for name, step in integers:
        yield Recipe(name, (*base, step))
    if not convolves:
        yield Recipe("int8 weights", (*base, weights_only(8)), "weights")
        yield Recipe("int4 weights", (*base, weights_only(4)), "weights")
    if goal is Goal.SIZE or has_half_precision():
        yield Recipe("float16", (*base, float16()))
    if is_transformer:
        for wide in _LAYERS_WIDE:
            yield Recipe(f"int8, {wide} layers wide", (*base, int8_mixed(wide)))
    for gone in _UNITS_GONE:
        pruned = (*base, structured(gone))
        yield Recipe(f"prune {gone:.1%}", pruned, "units")
        yield Recipe(f"prune {gone:.1%}, {integers[0][0]}", (*pruned, integers[0][1]), "units, int8")
    for name, step in _other_ranges(convolves=convolves):
        yield Recipe(name, (*base, step))


def _integers(*, convolves: bool, is_transformer: bool) -> list[tuple[str, Pass]]:
    static, dynamic = ("int8 static", int8_static()), ("int8 dynamic", int8_dynamic())
    if convolves:
        return [static]
    # Static ranges were measured useless on transformers (cosine 0.93 against 0.99).
    return [dynamic] if is_transformer else [static, dynamic]


def _other_ranges(*, convolves: bool) -> list[tuple[str, Pass]]:
    if not convolves:
        return []
    return [(f"int8 static, {ranges.value}", int8_static(ranges)) for ranges in (Ranges.PERCENTILE, Ranges.ENTROPY)]


def _passes(plan: Plan, model: ModelProto) -> list[Pass]:
    match plan:
        case Fuse():
            return [simplify(), *([without_skip_layer_norm_fusion()] if plan.skip_layer_norm_fusion else [])]
        case Compact():
            return [compact_trees()]
        case Prune(pattern=str() as pattern):
            return [simplify(), by_pattern(pattern)]
        case Prune(amount=float() | int() as amount):
            if any(name.startswith("TreeEnsemble") for name in operators(model)):
                return [drop_trees(float(amount))]
            return [simplify(), structured(float(amount)) if plan.structured else by_magnitude(float(amount))]
        case Quantize():
            return [simplify(), _quantization(plan, convolves="Conv" in operators(model))]
    raise PlanError(f"{plan} cannot be part of an explicit plan.")


def _quantization(plan: Quantize, *, convolves: bool) -> Pass:
    assert isinstance(plan.ranges, Ranges)
    match plan.precision:
        case Precision.INT8 if plan.keep_wide:
            return int8_mixed(plan.keep_wide)
        case Precision.INT8 | Precision.UINT8 if not convolves:
            return int8_dynamic(signed=plan.precision is Precision.INT8)
        case Precision.INT8_WEIGHTS:
            return weights_only(8)
        case Precision.INT4_WEIGHTS:
            return weights_only(4)
        case Precision.FLOAT16:
            return float16()
        case Precision.BFLOAT16:
            return bfloat16()
    return int8_static(plan.ranges)


def _has_layers(model: ModelProto) -> bool:
    graph = Graph(model)
    return any(node.op_type in {"MatMul", "Gemm", "Conv"} for node in graph.nodes)


def _normalizes(model: ModelProto) -> bool:
    # Exporters below opset 17 write LayerNormalization out as a mean, a variance and a root.
    return bool({"LayerNormalization", "Sqrt"} & operators(model).keys())
