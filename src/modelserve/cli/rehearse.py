"""`modelserve rehearse`: a deployment's whole life on a stand-in of its target, and what the real one would refuse."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.text import Text

from modelserve.backend import Verdict
from modelserve.bundle import Bundle
from modelserve.cli.output import (
    BAD,
    GOOD,
    POOR,
    QUIET,
    print_grid,
    print_heading,
    print_json,
    print_line,
    reporting,
)
from modelserve.deployment import open_target
from modelserve.errors import InputError
from modelserve.rehearsal import Report, page, rehearse, sample

_STYLES = {Verdict.PASSED: GOOD, Verdict.REFUSED: BAD, Verdict.LIVE_ONLY: POOR, Verdict.SKIPPED: QUIET}


def run(target: str, path: Path | None, *, name: str, html: Path | None, as_json: bool) -> None:
    """Rehearse; the exit status is 1 when the real place would refuse something."""
    if html is not None and not html.absolute().parent.is_dir():
        raise InputError(f"There is no folder {str(html.absolute().parent)!r} to write {html.name!r} into.")
    opened = open_target(target)
    bundle = sample() if path is None else Bundle.open(path)
    with reporting(f"Rehearsing {target}") as tell:
        report = rehearse(opened.backend, bundle, target=target, name=name, scale=opened.scale, on_progress=tell)
    if html is not None:
        html.write_text(page(report), encoding="utf-8")
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
        if html is not None:
            print_line(f"\nThe page: {html}")
    if not report.is_passed:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    about = report.about
    print_heading(f"Rehearsal of {about['target']}", f"{about['backend']}, {about['model']}, {report.seconds:.1f} s")
    print_line("")
    print_grid(
        {
            stage.name: [
                (Text(finding.verdict.value, _STYLES[finding.verdict]), finding.name, finding.text)
                for finding in stage.findings
            ]
            for stage in report.stages
            if stage.findings
        }
    )
    counts = ", ".join(f"{report.count(verdict)} {verdict.value}" for verdict in Verdict if report.count(verdict))
    print_line("")
    verdict = "The real place would refuse nothing of this" if report.is_passed else "The real place would refuse this"
    print_line(f"{verdict}: {counts}.")
