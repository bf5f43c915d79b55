"""What was tried, and what became of it, as plain JSON for the manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelserve.optimize.confidence import Interval
from modelserve.optimize.draft import Draft
from modelserve.optimize.machine import describe
from modelserve.optimize.recipes import Recipe
from modelserve.optimize.timing import Speed


class Verdict(StrEnum):
    """What became of a candidate."""

    CHOSEN = "chosen"
    ACCEPTED = "accepted"  # within the bound and better than the original; another one is better still
    TOO_LARGE_A_DROP = "drop too large"
    NOT_SURE_ENOUGH = "not sure enough"  # the drop may be within the bound, but its upper limit is not
    NOT_ENOUGH_ROWS = "not enough rows"
    NOT_BETTER = "not better"
    NOT_JUDGED = "not judged"  # others that looked better were judged instead
    NOT_TRIED = "not tried"
    SKIPPED = "skipped"  # the graph has no place for it
    DONE = "done"  # by an explicit plan, which has no bound


@dataclass(slots=True)
class Candidate:
    """One recipe on its way through the search."""

    recipe: Recipe
    verdict: Verdict = Verdict.NOT_TRIED
    reason: str = ""
    draft: Draft | None = None
    size_bytes: int = 0
    speeds: dict[int, Speed] = field(default_factory=dict)
    drop: Interval | None = None
    rows: int = 0
    memory_bytes: int = 0
    compressed_ratio: float = 0.0

    def to_json(self, original_size_bytes: int) -> dict[str, Any]:
        """Plain JSON; ratios are original / candidate, so that above 1 is better."""
        content: dict[str, Any] = {
            "name": self.recipe.name,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "steps": [{"name": step.name, **step.settings} for step in self.recipe.passes],
        }
        if self.draft is not None:
            content["size_bytes"] = self.size_bytes
            content["size_ratio"] = round(original_size_bytes / self.size_bytes, 3)
        content |= {f"batch_{rows}": speed.to_json() for rows, speed in sorted(self.speeds.items())}
        if self.compressed_ratio:
            content["compressed_ratio"] = round(self.compressed_ratio, 3)
        if self.memory_bytes:
            content["memory_bytes"] = self.memory_bytes
        if self.drop is not None and all(map(math.isfinite, self.drop)):
            content["drop"] = {key: round(value, 7) for key, value in self.drop._asdict().items()} | {"rows": self.rows}
        return content


def report(
    candidates: list[Candidate], *, original: Mapping[str, Any], asked: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """The optimisation report."""
    chosen = next((item for item in candidates if item.verdict in {Verdict.CHOSEN, Verdict.DONE}), None)
    return {
        "kind": "optimization",
        **asked,
        "original": dict(original),
        "chosen": chosen.recipe.name if chosen else "",
        "candidates": [item.to_json(original["size_bytes"]) for item in candidates],
        "machine": describe(),
        "seconds": round(seconds, 2),
    }
