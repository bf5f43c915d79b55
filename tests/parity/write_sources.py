"""Writes docs/reference/sources.md from what the parity tests recorded.

    make sources        runs tests/parity with MODELSERVE_SOURCES=FILE, then this: write_sources.py FILE PAGE

No number on that page is typed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

INTRODUCTION = "\n".join(  # one sentence a line
    [
        "# Sources",
        "",
        "What becomes portable, by which route, and how close to its source.",
        "`make sources` writes this page from what the tests in `tests/parity` found.",
        "",
        "The largest error is that of any output from the source's own answer, over all rows of the certificate, and "
        "in brackets as a share of the row's largest magnitude.",
        "Decisions (labels) are equal on all rows that were tried, unless a row says otherwise.",
        "A source that is refused can still be served by local workers, which run it as it is; `Model.bundle()` and "
        "the clouds refuse it with the reason.",
        "",
    ]
)
COLUMNS = ("source", "route", "rows tried", "largest error", "tolerance", "limits", "shown by")
REFUSED_COLUMNS = ("source", "reason", "shown by")
_LONGEST_REASON = 240


def page(records: Iterable[Mapping[str, Any]]) -> str:
    """The whole page; records of one framework stand together, in the order of their names."""
    by_framework: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_framework.setdefault(record["framework"], []).append(record)
    parts = [INTRODUCTION]
    for framework, found in sorted(by_framework.items(), key=lambda item: item[0].lower()):
        parts.append(f"## {framework}\n")
        unique = {(record["source"], bool(record["refused"])): record for record in found}
        ordered = sorted(unique.values(), key=lambda record: record["source"].lower())
        parts.append(_table(COLUMNS, [_row(record) for record in ordered if not record["refused"]]))
        parts.append(_table(REFUSED_COLUMNS, [_refused_row(record) for record in ordered if record["refused"]]))
    return "\n".join(part for part in parts if part)


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


def _row(record: Mapping[str, Any]) -> list[str]:
    certificate = next((report for report in record["reports"] if report.get("kind") == "fidelity"), None)
    route = "; ".join(_step(name, settings) for name, settings in record["lineage"]) or "as it is, in Python"
    if certificate is None:
        return [record["source"], route, "", "", "", record["limits"], f"`{record['test']}`"]
    tolerance = certificate["tolerance"]
    return [
        record["source"],
        route,
        str(certificate["rows"]),
        _largest(certificate["outputs"]),
        f"{tolerance['absolute']:g} + {tolerance['relative']:g}",
        record["limits"],
        f"`{record['test']}`",
    ]


def _refused_row(record: Mapping[str, Any]) -> list[str]:
    reason = " ".join(str(record["refused"]).split())
    short = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]} ..."
    return [record["source"], short, f"`{record['test']}`"]


def _step(name: str, settings: Mapping[str, Any]) -> str:
    said = ", ".join(f"{key} {value}" for key, value in settings.items() if key != "from")
    return f"{name} ({said})" if said else name


def _largest(outputs: list[Mapping[str, Any]]) -> str:
    changed = sum(output["changed"] for output in outputs)
    numbers = [output for output in outputs if not output["is_decision"]]
    if not numbers:
        return f"{changed} decisions changed"
    absolute = max(float(output["largest_absolute_error"]) for output in numbers)
    relative = max(float(output["largest_relative_error"]) for output in numbers)
    said = f"{absolute:.0e} ({relative:.0e})" if absolute else "0"
    return f"{said}, {changed} decisions changed" if changed else said


def main() -> None:
    """`write_sources.py RECORDS PAGE`."""
    records, target = map(Path, sys.argv[1:])
    lines = records.read_text(encoding="utf-8").splitlines()
    target.write_text(page(map(json.loads, lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
