"""Endpoints on the screen: one with its replicas, several as a table, and what a deploy would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from rich.text import Text

from modelserve.backend import EndpointStatus, Scale, State, Verdict
from modelserve.cli.output import (
    BAD,
    GOOD,
    POOR,
    QUIET,
    print_heading,
    print_json,
    print_line,
    print_pairs,
    print_table,
)
from modelserve.model import DryRun

Row: TypeAlias = list[str | Text]

_DIGEST_LETTERS = 12
_COLOURS = {State.READY: GOOD, State.FAILED: BAD, State.CLOSED: QUIET, State.RESTING: QUIET}
_VERDICTS = {Verdict.PASSED: GOOD, Verdict.REFUSED: BAD, Verdict.LIVE_ONLY: POOR, Verdict.SKIPPED: QUIET}


def print_endpoint(status: EndpointStatus, *, in_json: bool) -> None:
    """One endpoint and its replicas."""
    if in_json:
        print_json(as_json(status))
        return
    print_heading(status.name, f"on {status.backend}")
    pairs: dict[str, str | Text] = {
        "state": _state(status.state),
        "model": status.digest[:_DIGEST_LETTERS],
        "replicas": _scale(status.scale),
    }
    if status.message:
        pairs["says"] = status.message
    print_pairs(pairs)
    if status.replicas:
        print_line("")
        names = list(dict.fromkeys(name for replica in status.replicas for name in replica.details))
        rows: list[Row] = [
            [replica.name, _state(replica.state), *(str(replica.details.get(name, "")) for name in names)]
            for replica in status.replicas
        ]
        print_table(["replica", "state", *names], rows)


def print_endpoints(found: Sequence[tuple[str, EndpointStatus]], *, in_json: bool) -> None:
    """Endpoints of several targets."""
    if in_json:
        print_json([{"target": target, **as_json(status)} for target, status in found])
        return
    if not found:
        print_line("Nothing is deployed.")
        return
    rows: list[Row] = [
        [
            status.name,
            target,
            _state(status.state),
            status.digest[:_DIGEST_LETTERS],
            _scale(status.scale),
            status.message,
        ]
        for target, status in found
    ]
    print_table(["name", "target", "state", "model", "replicas", ""], rows)


def print_plan(plan: DryRun, *, in_json: bool) -> None:
    """What a deploy would do, and what its checks found."""
    if in_json:
        content = asdict(plan)
        content["scale"] = _scale_json(plan.scale)
        content["findings"] = [
            {"name": one.name, "verdict": one.verdict.value, "text": one.text} for one in plan.findings
        ]
        print_json(content)
        return
    print_line(str(plan).partition("\n")[0])
    options = {name: str(value) for name, value in plan.options.items()}
    print_pairs({"model": plan.digest[:_DIGEST_LETTERS], "replicas": _scale(plan.scale), **options})
    if plan.findings:
        print_line("")
        rows: list[Row] = [
            [one.name, Text(one.verdict.value, _VERDICTS[one.verdict]), one.text] for one in plan.findings
        ]
        print_table(["check", "verdict", ""], rows)


def as_json(status: EndpointStatus) -> dict[str, Any]:
    """An endpoint for programs."""
    return {
        "name": status.name,
        "backend": status.backend,
        "state": status.state.value,
        "digest": status.digest,
        "scale": _scale_json(status.scale),
        "replicas": [
            {"name": replica.name, "state": replica.state.value, "details": dict(replica.details)}
            for replica in status.replicas
        ],
        "message": status.message,
    }


def _scale_json(scale: Scale | None) -> dict[str, Any] | None:
    return None if scale is None else {"minimum": scale.minimum, "maximum": scale.maximum, **scale.targets}


def _scale(scale: Scale | None) -> str:
    if scale is None:
        return "as many as the place chooses"
    if scale.is_fixed:
        return str(scale.minimum)
    target = "".join(f", {name} {value:g}" for name, value in scale.targets.items())
    return f"{scale.minimum} to {scale.maximum}{target}"


def _state(state: State) -> Text:
    return Text(state.value, _COLOURS.get(state, POOR))
