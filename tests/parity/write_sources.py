"""Writes docs/reference/sources.md from what the parity tests recorded.

    make sources        runs tests/parity with MODELSERVE_SOURCES=FILE, then this: write_sources.py FILE PAGE

No number on that page is typed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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


class Entry(NamedTuple):
    """One row of the page: under its framework, among those that convert or those that are refused."""

    framework: str
    is_refused: bool
    cells: tuple[str, ...]


def page(records: Iterable[Mapping[str, Any]], before: str = "") -> str:
    """The whole page; rows of one framework stand together, in the order of their names.

    Args:
        before: A page whose rows stay where no record is of their source.
    """
    new = [_entry(record) for record in records]
    known = {(entry.framework, entry.cells[0]) for entry in new}
    old = [entry for entry in _entries(before) if (entry.framework, entry.cells[0]) not in known]
    unique = {(entry.framework, entry.is_refused, entry.cells[0]): entry for entry in (*old, *new)}
    ordered = sorted(unique.values(), key=lambda entry: (entry.framework.lower(), entry.cells[0].lower()))
    parts = [INTRODUCTION]
    for framework in dict.fromkeys(entry.framework for entry in ordered):
        parts.append(f"## {framework}\n")
        found = [entry for entry in ordered if entry.framework == framework]
        parts.append(_table(COLUMNS, [entry.cells for entry in found if not entry.is_refused]))
        parts.append(_table(REFUSED_COLUMNS, [entry.cells for entry in found if entry.is_refused]))
    return "\n".join(part for part in parts if part)


def _entry(record: Mapping[str, Any]) -> Entry:
    is_refused = bool(record["refused"])
    cells = _refused_row(record) if is_refused else _row(record)
    return Entry(record["framework"], is_refused, tuple(cell.replace("|", "&#124;") for cell in cells))


def _entries(text: str) -> Iterator[Entry]:
    """The rows of a page."""
    framework = ""
    for line in text.splitlines():
        if line.startswith("## "):
            framework = line.removeprefix("## ")
        cells = tuple(line.removeprefix("| ").removesuffix(" |").split(" | "))
        if line.startswith("| ") and cells[0] not in {"source", "---"}:
            yield Entry(framework, len(cells) == len(REFUSED_COLUMNS), cells)


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
    """`write_sources.py RECORDS PAGE`; with `--add` behind, rows of other sources stay as they are."""
    records, target = map(Path, sys.argv[1:3])
    before = target.read_text(encoding="utf-8") if sys.argv[3:] == ["--add"] else ""
    lines = records.read_text(encoding="utf-8").splitlines()
    target.write_text(page(map(json.loads, lines), before), encoding="utf-8")


if __name__ == "__main__":
    main()
