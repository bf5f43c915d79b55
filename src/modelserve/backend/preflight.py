"""Checks before anything is billed: each passes, is refused with the remedy, or can only be seen live.

    Check("role", look)  ──►  Finding("role", PASSED, what was found)
                              Finding("role", REFUSED, why, and what to do)      look raised an error of ours
                              Finding("role", LIVE_ONLY, why not here)           look raised OnlyLive

`deploy` runs them and stops at a refusal; a dry run and a rehearsal show them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from modelserve.errors import ModelServeError, PreflightError


class Verdict(Enum):
    """What a check came to."""

    PASSED = "passed"
    REFUSED = "refused"
    LIVE_ONLY = "only seen live"
    SKIPPED = "skipped"


class OnlyLive(Exception):  # noqa: N818  # no error: what was asked cannot be answered here
    """Raised by a check that only the real place can answer; its text says why."""


class Skipped(Exception):  # noqa: N818  # no error: there is nothing to look at
    """Raised by a check that does not apply; its text says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question. `look` answers with what it found, or raises `ModelServeError` (refused), `OnlyLive`, `Skipped`."""

    name: str
    look: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. `text` is for people: what was found, or why not and what to do."""

    name: str
    verdict: Verdict
    text: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.verdict.value:14} {self.name}: {self.text}"


def look(check: Check) -> Finding:
    """The answer to one check."""
    started = time.monotonic()

    def finding(verdict: Verdict, text: str) -> Finding:
        return Finding(check.name, verdict, text, time.monotonic() - started)

    try:
        return finding(Verdict.PASSED, check.look())
    except OnlyLive as why:
        return finding(Verdict.LIVE_ONLY, str(why))
    except Skipped as why:
        return finding(Verdict.SKIPPED, str(why))
    except ModelServeError as error:
        return finding(Verdict.REFUSED, str(error))


def look_all(checks: Iterable[Check]) -> list[Finding]:
    """The answers, in order; none is left out because another was refused."""
    return [look(check) for check in checks]


def require_passed(findings: Sequence[Finding], doing: str) -> None:
    """Stop here when something was refused.

    Raises:
        PreflightError: naming everything that was, so that it can be put right at once.
    """
    refused = [finding for finding in findings if finding.verdict is Verdict.REFUSED]
    if refused:
        lines = " ".join(f"({number}) {one.name}: {one.text}" for number, one in enumerate(refused, 1))
        raise PreflightError(f"{doing} was refused before anything was created. {lines}")
