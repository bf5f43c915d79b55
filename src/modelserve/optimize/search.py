"""Auto: the best candidate that is shown to stay within the bound.

    recipes ──make──► measured on `choose` ──► raced ──► finalists ──► judged on `judge` ──► raced again ──► best
                            │                    │            (rows that chose none of them)
                     drop too large          not better

The finalists are judged in an order fixed beforehand, the safest first, each at the full alpha, until one fails: so the
chance that any of those accepted breaks the bound is alpha, however many there are (Maurer, Hothorn & Lehmacher, 1995).
What is exact by construction needs no statistics: its answers are compared, and it is accepted when they are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from modelserve.errors import BundleError, OptimizationError
from modelserve.optimize.asked import answers, are_finite, are_same
from modelserve.optimize.confidence import ALPHA, Interval, rows_needed, rows_to_decide
from modelserve.optimize.contest import Contest
from modelserve.optimize.data import Dealt, Rows, judged_share, rows_for
from modelserve.optimize.draft import Draft, InapplicableError, Pass
from modelserve.optimize.metrics import Answers, Metric
from modelserve.optimize.plan import Auto, Goal
from modelserve.optimize.progress import Progress
from modelserve.optimize.recipes import Recipe, candidates
from modelserve.optimize.report import Candidate, Verdict

_FINALISTS, _BOLD_FINALISTS = 3, 2
_FIRST_RACE_S, _LAST_RACE_S = 0.6, 4.0
# Of a metric: the same answers, summed by another kernel.
_NOISE = 1e-6
_CHANGED = "An answer changed, although none should."


@dataclass(slots=True)
class Search:
    """One search; `run` does it, and `tried` then holds what became of everything.

    Attributes:
        extra: Recipes tried besides those that fit the model.
    """

    original: Draft
    plan: Auto
    metric: Metric
    dealt: Dealt
    primary: str
    on_progress: Callable[[Progress], None] = lambda progress: None
    threads: int = 1
    extra: Sequence[Recipe] = ()
    tried: list[Candidate] = field(default_factory=list)
    _made: dict[str, Draft] = field(default_factory=dict)
    _original_answers: dict[int, Answers] = field(default_factory=dict)
    _contest: Contest = field(init=False)

    def __post_init__(self) -> None:
        self._contest = Contest(self.original, Goal(self.plan.goal), self.dealt.fit.tensors)

    def run(self) -> Candidate | None:
        """The best accepted candidate, or None."""
        start = time.monotonic()
        deadline = start + self.plan.budget_s
        recipes = [
            *candidates(self.original.model, Goal(self.plan.goal), exact_only=self.plan.max_drop == 0),
            *self.extra,
        ]
        for number, recipe in enumerate(recipes, 1):
            spent = (time.monotonic() - start) / self.plan.budget_s
            self.on_progress(Progress(recipe.name, number, len(recipes), spent))
            self.tried.append(self._first_look(recipe, deadline))
        finalists = self._finalists()
        for number, candidate in enumerate(finalists, 1):
            self.on_progress(Progress(f"judging {candidate.recipe.name}", number, len(finalists), 1.0))
            self._judge(candidate)
            if candidate.verdict is not Verdict.ACCEPTED and not candidate.recipe.is_exact:
                break
        return self._best([item for item in finalists if item.verdict is Verdict.ACCEPTED])

    def _first_look(self, recipe: Recipe, deadline: float) -> Candidate:
        candidate = Candidate(recipe)
        candidate.reason = self._why_not_try(recipe, deadline)
        if candidate.reason:
            return candidate
        try:
            self._make(candidate)
            assert candidate.draft is not None
            candidate.size_bytes = candidate.draft.model.ByteSize()
            self._measure(candidate, candidate.draft.load(threads=self.threads), self.dealt.choose)
            self._contest.race([candidate], _FIRST_RACE_S, fewest_rounds=3)
        except (OptimizationError, BundleError) as error:
            candidate.verdict, candidate.reason, candidate.draft = Verdict.SKIPPED, str(error), None
            return candidate
        self._sort_out(candidate)
        return candidate

    def _why_not_try(self, recipe: Recipe, deadline: float) -> str:
        if time.monotonic() > deadline:
            return f"The budget of {self.plan.budget_s:g} s was spent."
        for other in self.tried:
            is_gentler = bool(recipe.family) and other.recipe.family == recipe.family
            if is_gentler and other.verdict is Verdict.TOO_LARGE_A_DROP:
                return f"{other.recipe.name!r}, which is gentler, drops too much already."
        return ""

    def _make(self, candidate: Candidate) -> None:
        """Apply the passes, from the longest beginning that was made before; what had nothing to do is left out."""
        recipe, draft = candidate.recipe, self.original
        done: list[Pass] = []
        for count, step in enumerate(recipe.passes, 1):
            key = recipe.key(count)
            if key not in self._made:
                try:
                    self._made[key] = step.apply(draft, list(self.dealt.fit.batches()))
                except InapplicableError:
                    # A preparation or an afterthought that has nothing to do is no reason against the rest.
                    if not step.is_exact or step is recipe.deciding:
                        raise
                    self._made[key] = draft
            if self._made[key] is not draft:
                done.append(step)
            draft = self._made[key]
        candidate.recipe, candidate.draft = replace(recipe, passes=tuple(done)), draft

    def _measure(self, candidate: Candidate, session: Any, rows: Rows) -> None:
        got = answers(session, rows)
        wanted = self.wanted(rows)
        if not are_finite(wanted, got):
            candidate.verdict, candidate.reason = (
                Verdict.TOO_LARGE_A_DROP,
                "It answers with numbers that are not finite.",
            )
            return
        truth = rows.labels if rows.labels is not None else wanted[self.primary]
        candidate.drop = self.metric.drop(truth, wanted, got)
        candidate.rows = len(rows)
        if not np.isfinite(candidate.drop).all():
            candidate.verdict, candidate.drop = Verdict.TOO_LARGE_A_DROP, None
            candidate.reason = f"{self.metric.name!r} of its answers is not a number."
            return
        if candidate.recipe.is_exact and not are_same(wanted, got):
            candidate.verdict, candidate.reason = Verdict.TOO_LARGE_A_DROP, "Its answers differ by more than rounding."

    def wanted(self, rows: Rows) -> Answers:
        """What the original answers to one of the hands."""
        if id(rows) not in self._original_answers:
            self._original_answers[id(rows)] = answers(self.original.load(threads=self.threads), rows)
        return self._original_answers[id(rows)]

    def _sort_out(self, candidate: Candidate) -> None:
        """The verdict that needs no further rows, if there is one."""
        if candidate.verdict is Verdict.TOO_LARGE_A_DROP or candidate.drop is None:
            return
        missing = self._rows_missing(candidate)
        if candidate.recipe.is_exact and candidate.drop.drop > _NOISE:
            candidate.verdict, candidate.reason = Verdict.TOO_LARGE_A_DROP, _CHANGED
        elif not candidate.recipe.is_exact and candidate.drop.drop > self.plan.max_drop:
            candidate.verdict = Verdict.TOO_LARGE_A_DROP
            candidate.reason = f"{candidate.drop.drop:.4g} on the rows for choosing; {self.plan.max_drop:g} is allowed."
        elif missing:
            candidate.verdict, candidate.reason = Verdict.NOT_ENOUGH_ROWS, missing
        elif not self._contest.is_won(candidate, at_first=True):
            candidate.verdict = Verdict.NOT_BETTER
            candidate.reason = f"Not measured better than the original on {Goal(self.plan.goal).value}."
        else:
            candidate.verdict, candidate.reason = Verdict.NOT_JUDGED, "Others that looked better were judged instead."

    def _rows_missing(self, candidate: Candidate) -> str:
        if candidate.recipe.is_exact:
            return ""
        judged = len(self.dealt.judge)
        bound = self.plan.max_drop if self.metric.is_share else 0.1
        needed = max(30, rows_needed(bound, alpha=ALPHA)) if bound > 0 else 0
        if judged >= needed and judged_share(_total(self.dealt)) > 0:
            return ""
        return (
            f"{_total(self.dealt)} rows cannot show a drop within {self.plan.max_drop:g}: "
            f"at least {rows_for(needed)} are needed, of which {needed} are left for the verdict."
        )

    def _finalists(self) -> list[Candidate]:
        open_ = sorted(
            (item for item in self.tried if item.verdict is Verdict.NOT_JUDGED), key=self._contest.merit, reverse=True
        )
        exact = [item for item in open_ if item.recipe.is_exact]
        # Bolder ones that are not better than a safer one are not worth a test.
        front: list[Candidate] = []
        for item in sorted((item for item in open_ if not item.recipe.is_exact), key=_upper_limit):
            if all(self._is_worth(item, safer) for safer in front):
                front.append(item)
        safe = [item for item in front if _upper_limit(item) <= self.plan.max_drop]
        bold = [item for item in front if item not in safe]
        # A failure ends the judging, so that those that are all but certain to pass come first.
        return [*exact, *safe[-_FINALISTS:], *bold[:_BOLD_FINALISTS]]

    def _is_worth(self, bolder: Candidate, safer: Candidate) -> bool:
        """Whether it is better; of one family what is smaller is, too, whatever a first short race said."""
        is_further = bool(bolder.recipe.family) and bolder.recipe.family == safer.recipe.family
        return (is_further and bolder.size_bytes < safer.size_bytes) or (
            self._contest.merit(bolder) > self._contest.merit(safer)
        )

    def _judge(self, candidate: Candidate) -> None:
        assert candidate.draft is not None
        self._measure(candidate, candidate.draft.load(threads=self.threads), self.dealt.judge)
        if candidate.verdict is Verdict.TOO_LARGE_A_DROP or candidate.drop is None:
            return
        candidate.verdict, candidate.reason = Verdict.ACCEPTED, ""
        if candidate.recipe.is_exact:
            if candidate.drop.drop > _NOISE:
                candidate.verdict, candidate.reason = Verdict.TOO_LARGE_A_DROP, _CHANGED
        elif candidate.drop.high > self.plan.max_drop:
            is_over = candidate.drop.drop > self.plan.max_drop
            candidate.verdict = Verdict.TOO_LARGE_A_DROP if is_over else Verdict.NOT_SURE_ENOUGH
            candidate.reason = (
                f"{candidate.drop.drop:.4g} on {candidate.rows} rows that chose nothing, at most "
                f"{candidate.drop.high:.4g} with {1 - ALPHA:.0%} confidence; {self.plan.max_drop:g} is allowed."
                f"{self._rows_to_decide(candidate.drop, candidate.rows)}"
            )

    def _rows_to_decide(self, drop: Interval, rows: int) -> str:
        needed = rows_to_decide(drop, rows, self.plan.max_drop)
        if needed is None or needed <= rows:
            return ""
        return f" If the drop stays as it is, about {rows_for(needed)} rows in all would show it."

    def _best(self, accepted: list[Candidate]) -> Candidate | None:
        self._contest.race(accepted, _LAST_RACE_S, fewest_rounds=7)
        for candidate in accepted:
            if not self._contest.is_won(candidate):
                candidate.verdict, candidate.reason = Verdict.NOT_BETTER, "Not measured better when raced again."
        standing = [item for item in accepted if item.verdict is Verdict.ACCEPTED]
        if not standing:
            return None
        best = self._contest.best(standing)
        best.verdict, best.reason = Verdict.CHOSEN, f"The best on {Goal(self.plan.goal).value} of those accepted."
        return best


def _upper_limit(candidate: Candidate) -> float:
    return candidate.drop.high if candidate.drop else np.inf


def _total(dealt: Dealt) -> int:
    return len(dealt.fit) + len(dealt.choose) + len(dealt.judge)
