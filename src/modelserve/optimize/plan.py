"""How to shrink a model: plans, joined by `>>` in the order in which they are done.

    Prune(0.5) >> Quantize("int8")        these passes, in this order
    Auto(max_drop=0.01, data=(X, y))      whatever is measured best within a bound

A plan is checked when it is made, so that nonsense is refused before any work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelserve.errors import PlanError


class Precision(StrEnum):
    """What weights are held in, and what the arithmetic is done in."""

    INT8 = "int8"  # weights per channel, activations measured at run time; static where the graph convolves
    UINT8 = "uint8"  # as int8, with unsigned weights
    INT8_STATIC = "int8-static"  # the ranges of activations are fixed from samples
    INT8_WEIGHTS = "int8-weights"  # 8 bits on disk and in memory, wider arithmetic
    INT4_WEIGHTS = "int4-weights"
    INT8_STORED = "int8-stored"  # 8 bits on disk only; widened when the model is loaded
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


_MIXABLE = frozenset({Precision.INT8, Precision.UINT8, Precision.INT8_STATIC})


class Ranges(StrEnum):
    """How a static quantisation finds the range of an activation."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


class Goal(StrEnum):
    """What "better" means."""

    LATENCY = "latency"  # median time of one row
    THROUGHPUT = "throughput"  # median time of a batch of 32 rows
    SIZE = "size"  # bytes on disk
    MEMORY = "memory"  # what loading the model adds to a process


class Plan:
    """Something that can be done to a model. `first >> second` does both."""

    __slots__ = ()

    def __rshift__(self, other: Plan) -> Chain:
        if not isinstance(other, Plan):
            raise PlanError(f"A plan can be followed by a plan only, got {other!r}. Use Quantize, Prune or Fuse.")
        return Chain((*_parts(self), *_parts(other)))


@dataclass(frozen=True, slots=True)
class Fuse(Plan):
    """Do beforehand what the runtime would do at load: fold constants, fuse operators. Exact."""

    skip_layer_norm_fusion: bool = True  # measured faster without onnxruntime's SkipLayerNormFusion


@dataclass(frozen=True, slots=True)
class Compact(Plan):
    """Write tree ensembles without what changes no answer. Exact."""


@dataclass(frozen=True, slots=True)
class Quantize(Plan):
    """Hold numbers in fewer bits.

    Args:
        precision: See `Precision`.
        ranges: For "int8-static" and graphs that convolve.
        keep_wide: How many of the most sensitive layers keep wider arithmetic; a scan finds them.
    """

    precision: Precision | str = Precision.INT8
    ranges: Ranges | str = Ranges.MINMAX
    keep_wide: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", _member(Precision, self.precision, "Quantize"))
        object.__setattr__(self, "ranges", _member(Ranges, self.ranges, "Quantize(ranges=)"))
        if not _is_count(self.keep_wide) or (self.keep_wide and self.precision not in _MIXABLE):
            raise PlanError(
                f"keep_wide is a number of layers, with {', '.join(sorted(_MIXABLE))} only; got {self.keep_wide!r} "
                f"with {Precision(self.precision).value!r}."
            )


@dataclass(frozen=True, slots=True)
class Prune(Plan):
    """Leave out a share of the model.

    Args:
        amount: Between 0 and 1, both excluded: the share of units, channels or trees that goes.
        structured: Really remove them, correcting what remains. Otherwise weights of small magnitude become zero, which
            makes the compressed file smaller and brings no speed.
        pattern: For unstructured pruning, "2:4" and the like: two of each four weights stay. Without an `amount`.
    """

    amount: float | None = None
    structured: bool = True
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.pattern is not None:
            self._check_pattern(self.pattern)
        elif not _is_number(self.amount) or not 0 < float(self.amount or 0) < 1:
            raise PlanError(f"Prune needs an amount between 0 and 1 (0.5 removes one half), got {self.amount!r}.")

    def _check_pattern(self, pattern: str) -> None:
        stay, _, of = pattern.partition(":")
        if not (stay.isdigit() and of.isdigit() and 0 < int(stay) < int(of)):
            raise PlanError(f"A pattern is written '2:4' (two of each four stay), got {pattern!r}.")
        if self.structured or self.amount is not None:
            raise PlanError(f"A pattern goes with Prune(structured=False, pattern={pattern!r}) and without an amount.")


@dataclass(frozen=True, slots=True)
class Auto(Plan):
    """Search for the best model whose answers get worse by at most `max_drop`.

    Args:
        max_drop: In the metric's own unit: 0.01 of accuracy is one row in a hundred. 0 admits what is exact only.
        metric: "accuracy", "f1", "roc_auc", "rmse", "mae", "cosine", "agreement", or a callable
            (truth, answers) -> float where more is better. Without labels the truth is what the original answers.
        data: Rows that the model was not trained on: inputs, or (inputs, labels). Several inputs come as a dict.
        goal: See `Goal`.
        budget_s: Seconds after which no further candidate is made.
    """

    max_drop: float
    metric: str | Callable[[Any, Any], float] | None = None
    data: Any = None
    goal: Goal | str = Goal.LATENCY
    budget_s: float = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "goal", _member(Goal, self.goal, "Auto(goal=)"))
        if not _is_number(self.max_drop) or self.max_drop < 0:
            raise PlanError(f"max_drop is how much worse the answers may get, 0 or more; got {self.max_drop!r}.")
        if not _is_number(self.budget_s) or self.budget_s <= 0:
            raise PlanError(f"budget_s is a number of seconds above 0, got {self.budget_s!r}.")


@dataclass(frozen=True, slots=True)
class Chain(Plan):
    """Plans one after the other; made by `>>`."""

    plans: tuple[Plan, ...]

    def __post_init__(self) -> None:
        if not self.plans:
            raise PlanError("A plan needs at least one step, such as Quantize('int8').")
        if len(self.plans) > 1 and any(isinstance(plan, Auto) for plan in self.plans):
            raise PlanError("Auto chooses its own passes and cannot be joined with others. Use it alone.")
        self._check_order()

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.plans)

    def _check_order(self) -> None:
        quantized: Plan | None = None
        for plan in self.plans:
            if quantized is not None:
                raise PlanError(f"{plan} cannot follow {quantized}: quantised weights cannot be changed any more. "
                                "Put Quantize last, and only once.")  # fmt: skip
            quantized = plan if isinstance(plan, Quantize) else None
        kinds = [type(plan) for plan in self.plans if not isinstance(plan, Prune)]
        if len(set(kinds)) != len(kinds):
            raise PlanError(f"The plan does the same thing twice: {' >> '.join(map(str, self.plans))}.")


def checked(plan: Any) -> tuple[Plan, ...]:
    """The steps of whatever the caller gave: a plan, or a precision's name.

    Raises:
        PlanError: it is neither.
    """
    if isinstance(plan, str):
        plan = Quantize(plan)
    if not isinstance(plan, Plan) or type(plan) is Plan:
        raise PlanError(f"A plan is made of Quantize, Prune, Fuse, Compact or Auto, got {plan!r}.")
    return _parts(plan)


def _parts(plan: Plan) -> tuple[Plan, ...]:
    return plan.plans if isinstance(plan, Chain) else (plan,)


def _member(kind: type[Any], value: Any, what: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise PlanError(f"{what} takes {', '.join(repr(member.value) for member in kind)}; got {value!r}.") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
