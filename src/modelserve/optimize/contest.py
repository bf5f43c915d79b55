"""Candidates raced against the original, and which of them is best on the goal.

size, memory    what they are, not what they do: no timing decides
latency         one row;  throughput: 32 rows; interleaved with the original, in one process
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelserve.optimize.draft import Draft
from modelserve.optimize.footprint import memory_bytes
from modelserve.optimize.plan import Goal
from modelserve.optimize.report import Candidate
from modelserve.optimize.timing import batch_of, race
from modelserve.tensors import Tensors

_BATCH_SIZES = (1, 32)
_BATCH_OF_GOAL = {Goal.LATENCY: 1, Goal.THROUGHPUT: 32}
# Speeds that are nearer than that change places from run to run.
_AS_FAST = 0.97


@dataclass(frozen=True, slots=True)
class Contest:
    """What candidates are raced with.

    Attributes:
        rows: Inputs whose first ones are asked for.
    """

    original: Draft
    goal: Goal
    rows: Tensors

    def race(self, entrants: Sequence[Candidate], budget_s: float, *, fewest_rounds: int) -> None:
        """Time them all; their `speeds`, and `memory_bytes` where that is the goal, say afterwards what was found.

        Args:
            budget_s: For each of them and each size of batch.
        """
        drafts = {str(index): item.draft for index, item in enumerate(entrants) if item.draft is not None}
        if not drafts:
            return
        sessions = {name: draft.load() for name, draft in drafts.items()}
        original = self.original.load()
        for size in _BATCH_SIZES:
            batch = batch_of(self.rows, size)
            speeds = race(original, sessions, batch, budget_s=budget_s * len(drafts), fewest_rounds=fewest_rounds)
            for name, speed in speeds.items():
                entrants[int(name)].speeds[size] = speed
        if self.goal is Goal.MEMORY:
            for item in entrants:
                assert item.draft is not None
                item.memory_bytes = item.memory_bytes or memory_bytes(item.draft)

    def merit(self, candidate: Candidate) -> tuple[float, float]:
        """The larger the better; the second decides between equals."""
        speed = candidate.speeds[_BATCH_OF_GOAL.get(self.goal, 1)].ratio
        if self.goal is Goal.SIZE:
            return -candidate.size_bytes, speed
        if self.goal is Goal.MEMORY:
            return -candidate.memory_bytes, speed
        return speed, -candidate.size_bytes

    def is_won(self, candidate: Candidate, *, at_first: bool = False) -> bool:
        """Whether it is better than the original; `at_first` a speed need only look so."""
        if self.goal is Goal.SIZE:
            return bool(candidate.size_bytes < self.original.model.ByteSize())
        if self.goal is Goal.MEMORY:
            return bool(0 < candidate.memory_bytes < memory_bytes(self.original))
        speed = candidate.speeds[_BATCH_OF_GOAL[self.goal]]
        return bool((speed.ratio if at_first else speed.low) > 1)

    def best(self, standing: Sequence[Candidate]) -> Candidate:
        """The one of most merit; of those as fast as it the smallest."""
        first = max(standing, key=self.merit)
        batch = _BATCH_OF_GOAL.get(self.goal)
        if batch is None:
            return first
        least = _AS_FAST * first.speeds[batch].ratio
        return min((item for item in standing if item.speeds[batch].ratio >= least), key=lambda item: item.size_bytes)
