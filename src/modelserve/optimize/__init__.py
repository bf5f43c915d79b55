"""A bundle in, a smaller or faster bundle out, within a bound that the user sets.

    bundle ──explicit plan──► its passes in order ─────────────────────┐
           └─Auto───────────► Search: candidates, measured and judged ─┴─► bundle with steps and a report

The bundle given is never changed, and the signature stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from modelserve import fidelity
from modelserve.bundle import Bundle, Step, write
from modelserve.errors import OptimizationError, PlanError
from modelserve.optimize import report as reports
from modelserve.optimize.asked import answers, are_finite
from modelserve.optimize.data import Rows, check_labels, deal, rows_of
from modelserve.optimize.draft import Draft, InapplicableError
from modelserve.optimize.metrics import Answers, Metric, decisions, metric_for
from modelserve.optimize.picture import plot, plot_image
from modelserve.optimize.plan import Auto, Chain, Compact, Fuse, Goal, Plan, Precision, Prune, Quantize, Ranges, checked
from modelserve.optimize.progress import Progress
from modelserve.optimize.recipes import Recipe, recipe_of
from modelserve.optimize.report import Candidate, Verdict
from modelserve.optimize.search import Search
from modelserve.optimize.sparse import compressed_bytes
from modelserve.optimize.timing import batch_of, race
from modelserve.session import session_settings
from modelserve.tensors import Array

__all__ = ["Auto", "Chain", "Compact", "Fuse", "Goal", "Plan", "Precision", "Progress", "Prune", "Quantize", "Ranges",
           "optimize", "plot", "plot_image"]  # fmt: skip

_THREADS_OF_ANSWERS = 2
# A graph and its weights in one message of protobuf hold no more; a pass may add a little.
_LARGEST_BYTES = 1_900_000_000


def optimize(
    bundle: Bundle, plan: Plan | str, samples: Any = None, *, on_progress: Callable[[Progress], None] | None = None
) -> Bundle:
    """Make a bundle smaller or faster.

    Args:
        plan: Passes joined by `>>`, or `Auto`.
        samples: Inputs by which passes calibrate; the bundle's example where there are none. `Auto` has its own data.
        on_progress: Is told what is being done.

    Returns:
        A new bundle. Its last report, of kind "optimization", holds every candidate with size, speed, drop and verdict.
        Where nothing could be done or shown, it is the same model with the reasons in that report.

    Raises:
        PlanError: the plan, or its data, makes no sense for this model; nothing was done.
        OptimizationError: a pass could not do what was asked.
    """
    steps = checked(plan)
    if isinstance(steps[0], Auto):
        return _search(bundle, steps[0], on_progress or _say_nothing)
    calibration = rows_of(bundle, bundle.example() if samples is None else samples, "samples")
    return _apply(bundle, steps, calibration, on_progress or _say_nothing)


def _say_nothing(_progress: Progress) -> None:
    pass


def _draft(bundle: Bundle) -> Draft:
    if bundle.size_bytes > _LARGEST_BYTES:
        raise OptimizationError(
            f"Models up to {_LARGEST_BYTES / 1e9:.1f} GB can be optimised, this has {bundle.size_bytes / 1e9:.1f} GB. "
            "Serve it as it is, or make the source smaller before it is converted."
        )
    return Draft(onnx.load(bundle.model_path), session_settings(bundle.manifest))


def _search(bundle: Bundle, plan: Auto, on_progress: Callable[[Progress], None]) -> Bundle:
    start = time.monotonic()
    rows = rows_of(bundle, plan.data, "data")
    metric = metric_for(plan.metric, bundle.signature, has_labels=rows.labels is not None)
    original = _draft(bundle)
    dealt = deal(rows)
    search = Search(
        original, plan, metric, dealt, bundle.signature.primary, on_progress=on_progress, threads=_THREADS_OF_ANSWERS
    )
    value = _value(bundle, search)
    chosen = search.run()
    asked = {
        "goal": Goal(plan.goal).value,
        "metric": metric.name,
        "max_drop": plan.max_drop,
        "budget_s": plan.budget_s,
        "confidence": 0.95,
        "rows": {"fit": len(dealt.fit), "choose": len(dealt.choose), "judge": len(dealt.judge)},
        "data_digest": rows.digest,
    }
    described = {"digest": bundle.digest, "size_bytes": original.model.ByteSize(), metric.name: round(value, 6)}
    told = reports.report(search.tried, original=described, asked=asked, seconds=time.monotonic() - start)
    told["reason"] = "" if chosen else _why_nothing(search.tried)
    if chosen is None or chosen.draft is None:
        return _write(bundle, original, (), told)
    return _write(bundle, chosen.draft, _done(chosen.recipe), told)


def _value(bundle: Bundle, search: Search) -> float:
    """What the original reaches; also the check that the data makes sense to it."""
    hands = (search.dealt.fit, search.dealt.choose, search.dealt.judge)
    try:
        parts = [search.wanted(hand) for hand in hands]
    except OptimizationError as error:
        raise PlanError(f"The model cannot answer the rows of data: {error}") from error
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    primary, metric = found[bundle.signature.primary], search.metric
    labels = [hand.labels for hand in hands if hand.labels is not None]
    truth = np.concatenate(labels) if labels else primary
    if labels and metric.name in {"accuracy", "f1"}:
        check_labels(truth, decisions(primary), _classes(search.original, bundle.signature.primary, primary))
    value = _called(metric, truth, found)
    if not np.isfinite(value):
        raise PlanError(
            f"The metric {metric.name!r} of the original is {value} on this data. Give rows where it is a number."
        )
    return value


def _called(metric: Metric, truth: Array, found: Answers) -> float:
    try:
        return metric.value(truth, found)
    except (TypeError, ValueError, IndexError) as error:
        raise PlanError(f"The metric {metric.name!r} cannot be computed on this data: {error}") from error


def _classes(original: Draft, name: str, primary: Array) -> Array | None:
    """Every label that the model can answer, where that can be told."""
    if primary.dtype.kind == "f":
        return np.arange(primary.shape[1] if primary.ndim == 2 and primary.shape[1] > 1 else 2)
    makers = [node for node in original.model.graph.node if name in node.output]
    for entry in (entry for node in makers for entry in node.attribute):
        if entry.name == "classlabels_int64s" and entry.ints:
            return np.asarray(entry.ints)
        if entry.name == "classlabels_strings" and entry.strings:
            return np.array([label.decode() for label in entry.strings], object)
    return None


def _why_nothing(tried: list[Candidate]) -> str:
    if not tried:
        return "No pass has a place in this graph."
    counts: dict[str, int] = {}
    for item in tried:
        counts[item.verdict.value] = counts.get(item.verdict.value, 0) + 1
    few = next((item.reason for item in tried if item.verdict is Verdict.NOT_ENOUGH_ROWS), "")
    return f"The original stays: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}. {few}".strip()


def _apply(bundle: Bundle, plans: tuple[Plan, ...], rows: Rows, on_progress: Callable[[Progress], None]) -> Bundle:
    start = time.monotonic()
    metric = metric_for(None, bundle.signature, has_labels=False)
    original = draft = _draft(bundle)
    recipe = recipe_of(plans, original.model)
    batches = list(rows.batches())
    done, skipped = [], []
    for number, step in enumerate(recipe.passes, 1):
        on_progress(Progress(step.name, number, len(recipe.passes)))
        try:
            draft = step.apply(draft, batches)
            done.append(step)
        except InapplicableError as error:
            skipped.append(Candidate(Recipe(step.name, (step,)), Verdict.SKIPPED, str(error)))
    candidate = Candidate(
        Recipe(recipe.name, tuple(done)), Verdict.DONE, draft=draft, size_bytes=draft.model.ByteSize()
    )
    # Simplifying alone prepares for other passes; it counts where it was asked for.
    is_asked = any(isinstance(plan, Fuse) for plan in plans)
    is_changed = any(is_asked or step.name != "simplify" for step in done)
    if is_changed:
        _measure(bundle, original, candidate, rows, metric)
    if any(step.settings.get("structured") is False for step in done):
        # All that zeros are good for.
        candidate.compressed_ratio = compressed_bytes(original) / compressed_bytes(draft)
    asked = {"plan": [str(plan) for plan in plans], "data_digest": rows.digest, "metric": metric.name}
    described = {"digest": bundle.digest, "size_bytes": original.model.ByteSize()}
    items = [*([candidate] if is_changed else []), *skipped]
    told = reports.report(items, original=described, asked=asked, seconds=time.monotonic() - start)
    return _write(bundle, draft, _done(candidate.recipe), told) if is_changed else _write(bundle, original, (), told)


def _measure(bundle: Bundle, original: Draft, candidate: Candidate, rows: Rows, metric: Metric) -> None:
    assert candidate.draft is not None
    session, before = candidate.draft.load(), original.load()
    wanted, got = answers(before, rows), answers(session, rows)
    primary = bundle.signature.primary
    if not are_finite(wanted, got):
        raise OptimizationError("The result answers with numbers that are not finite. Choose a gentler plan.")
    candidate.drop, candidate.rows = metric.drop(wanted[primary], wanted, got), len(rows)
    for size in (1, 32):
        candidate.speeds |= {size: race(before, {"it": session}, batch_of(rows.tensors, size), budget_s=0.5)["it"]}


def _done(recipe: Recipe) -> tuple[Step, ...]:
    return tuple(Step(step.name, dict(step.settings)) for step in recipe.passes)


def _write(bundle: Bundle, draft: Draft, steps: tuple[Step, ...], told: dict[str, Any]) -> Bundle:
    manifest = bundle.manifest
    return write(
        draft.model,
        signature=manifest.signature,
        origin=manifest.origin,
        lineage=(*manifest.lineage, *steps),
        example=bundle.example(),
        rows_independent=manifest.rows_independent and (not steps or _rows_are_independent(bundle, draft)),
        reports=(*manifest.reports, told),
    )


def _rows_are_independent(bundle: Bundle, draft: Draft) -> bool:
    # Dynamic quantisation takes its ranges over all rows of a batch, so that rows see each other a little.
    session = draft.load()
    names = [spec.name for spec in bundle.signature.outputs]

    def answer(tensors: Any) -> dict[str, Array]:
        return dict(zip(names, session.run(names, dict(tensors)), strict=True))

    return fidelity.rows_are_independent(answer, bundle.signature, bundle.example())
