"""What a rehearsal found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelserve.backend import Finding, Verdict


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a deployment's life, and what was found there."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def seconds(self) -> float:
        return sum(finding.seconds for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Report:
    """What a rehearsal found, stage by stage.

    Attributes:
        about: What was rehearsed: target, backend, model, versions.
    """

    about: Mapping[str, str]
    stages: tuple[Stage, ...] = field(default_factory=tuple)

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for stage in self.stages for finding in stage.findings)

    @property
    def is_passed(self) -> bool:
        """Whether the real place would refuse nothing of what was tried."""
        return not self.count(Verdict.REFUSED)

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    def count(self, verdict: Verdict) -> int:
        return sum(finding.verdict is verdict for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "passed": self.is_passed,
            "seconds": round(self.seconds, 3),
            "counts": {verdict.value: self.count(verdict) for verdict in Verdict},
            **self.about,
            "stages": [
                {"name": stage.name, "findings": [_plain(one) for one in stage.findings]} for stage in self.stages
            ],
        }


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "verdict": finding.verdict.value,
        "text": finding.text,
        "seconds": round(finding.seconds, 3),
    }
