"""An optimisation report as tables: what was asked, and every candidate with size, speed, drop and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from modelserve.cli.output import BAD, GOOD, POOR, QUIET, print_heading, print_line, print_pairs, print_table, size

_COLOURS = {"chosen": GOOD, "done": GOOD, "accepted": GOOD, "drop too large": BAD, "not sure enough": POOR,
            "not enough rows": POOR}  # fmt: skip


def print_optimization(report: Mapping[str, Any]) -> None:
    """Ratios are original / candidate, with the 95 % interval of the median; the drop has its one-sided limits."""
    print_heading("optimisation")
    print_pairs(_asked(report))
    if report["candidates"]:
        print_line("")
        headings = ["candidate", "smaller", "batch 1", "batch 32", "drop", "verdict", "why"]
        print_table(headings, [_row(item) for item in report["candidates"]])


def _asked(report: Mapping[str, Any]) -> dict[str, str | Text]:
    machine, original = report["machine"], report["original"]
    chosen = Text(report["chosen"], GOOD) if report["chosen"] else Text("the original stays", POOR)
    search = "goal" in report
    return {
        "chosen": chosen,
        **({"reason": report["reason"]} if report.get("reason") else {}),
        "asked": _search_asked(report) if search else " >> ".join(report["plan"]),
        **({"rows": _rows(report["rows"])} if search else {}),
        "data": report["data_digest"],
        "original": f"{original['digest']}, {size(original['size_bytes'])}",
        "machine": f"{machine['processor']} ({', '.join(machine['instructions']) or 'no instruction set known'}), "
        f"{machine['cores']} cores, onnxruntime {machine['onnxruntime']}",
        "took": f"{report['seconds']:.1f} s",
    }


def _search_asked(report: Mapping[str, Any]) -> str:
    return (
        f"the best on {report['goal']} whose {report['metric']} drops by at most {report['max_drop']:g}, "
        f"with {report['confidence']:.0%} confidence; within {report['budget_s']:g} s"
    )


def _rows(rows: Mapping[str, int]) -> str:
    return f"{rows['fit']} to calibrate, {rows['choose']} to choose, {rows['judge']} for the verdict"


def _row(item: Mapping[str, Any]) -> list[str | Text]:
    drop = item.get("drop")
    return [
        item["name"],
        _smaller(item),
        _speed(item.get("batch_1")),
        _speed(item.get("batch_32")),
        f"{drop['drop']:.4g} ({drop['low']:.4g} to {drop['high']:.4g}; {drop['rows']} rows)" if drop else "",
        Text(item["verdict"], _COLOURS.get(item["verdict"], QUIET)),
        item["reason"],
    ]


def _smaller(item: Mapping[str, Any]) -> str:
    packed = f" ({item['compressed_ratio']:.2f}x compressed)" if "compressed_ratio" in item else ""
    return f"{item['size_ratio']:.2f}x{packed}" if "size_ratio" in item else ""


def _speed(speed: Mapping[str, float] | None) -> str:
    return f"{speed['ratio']:.2f}x ({speed['low']:.2f} to {speed['high']:.2f})" if speed else ""
