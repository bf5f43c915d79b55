"""A report as a picture: how much worse against how much faster, and against how much smaller.

drop │   ·            bars: the one-sided limits of each drop
     │     ·  ●       ●: the candidate that was chosen
bound├───────────     right is better, low is better
     └────────── times as fast | times smaller
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 470, 340, 66, 34, 16, 46
#: By verdict: colour, and whether the mark is filled. Colours are told apart by most kinds of eyes (Okabe & Ito).
_MARKS = {
    "chosen": ("#009e73", True),
    "done": ("#009e73", True),
    "accepted": ("#0072b2", True),
    "not judged": ("#0072b2", False),
    "not sure enough": ("#e69f00", False),
    "not better": ("#888888", False),
    "not enough rows": ("#888888", False),
    "drop too large": ("#d55e00", False),
}
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:68rem;padding:0 1rem;color:#1b1b1b;background:#fff}
svg{max-width:100%;height:auto} svg text{font:12px system-ui,sans-serif;fill:#444} .pair{display:flex;flex-wrap:wrap}
table{border-collapse:collapse;width:100%;font-size:13px} th,td{text-align:left;padding:.25rem .5rem;
border-bottom:1px solid #ddd;vertical-align:top} td.n{text-align:right;font-variant-numeric:tabular-nums}
tr.chosen{background:#e5f5f0;font-weight:600} .muted{color:#666} .key{display:inline-block;margin-right:1.2rem}
.key i{display:inline-block;width:.6rem;height:.6rem;border:1.5px solid;border-radius:50%;margin-right:.35rem}
.name{font-weight:600;paint-order:stroke;stroke:#fff;stroke-width:4px}
"""


@dataclass(frozen=True, slots=True)
class _Axis:
    """A scale from values to pixels; logarithmic where values span much."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.is_log:
            marks = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
            return [mark for mark in marks if self.low <= mark <= self.high]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        return [index * step for index in range(first, int(self.high / step) + 1)]


def plot(report: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs nothing else."""
    title = f"Chosen: {report['chosen']}" if report["chosen"] else "The original stays"
    panels = "".join(_panel(report, key, label) for key, label in _panels(report))
    rows = "".join(_row(item) for item in report["candidates"])
    head = "".join(
        f"<th>{name}</th>" for name in ("candidate", "drop", "batch 1", "batch 32", "smaller", "verdict", "why")
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1><p>{escape(_asked(report))}</p><div class=pair>{panels}</div>"
        f"<p>{_keys(report)}</p>"
        f"<table><tr>{head}</tr>{rows}</table>"
        f"<p class=muted>Original {escape(report['original']['digest'][:16])}, data "
        f"{escape(report['data_digest'][:16])}, {escape(_machine(report['machine']))}.</p></html>"
    )


def plot_image(report: Mapping[str, Any], path: str | Path) -> None:
    """The two panels as an image, its format by the name's ending; needs matplotlib.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from modelserve.optimize.image import draw

    draw(report, Path(path), _panels(report), _MARKS)


def drawn(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The candidates that were measured."""
    return [item for item in report["candidates"] if "drop" in item and "batch_1" in item]


def value_of(item: Mapping[str, Any], key: str) -> float:
    """How many times better than the original on this key."""
    found = item[key]
    return float(found["ratio"] if isinstance(found, Mapping) else found)


def top_of(report: Mapping[str, Any]) -> float:
    """The largest drop that is shown as such; what is worse lies on the upper edge."""
    bound = report.get("max_drop") or 0.0
    drops = [item["drop"]["high"] for item in drawn(report)]
    worst: float = max([*drops, bound, 1e-6])
    return min(worst, 3 * bound) if bound else worst


def _panels(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    batch = 32 if report.get("goal") == "throughput" else 1
    return [(f"batch_{batch}", f"times as fast (batch {batch})"), ("size_ratio", "times smaller")]


def _panel(report: Mapping[str, Any], key: str, label: str) -> str:
    items = drawn(report)
    if not items:
        return ""
    values = [value_of(item, key) for item in items]
    across = _Axis(min([*values, 1.0]) / 1.15, max([*values, 1.0]) * 1.25, _LEFT, _WIDTH - _RIGHT, is_log=True)
    top = top_of(report)
    lowest = min([item["drop"]["low"] for item in items] + [0.0])
    up = _Axis(max(lowest, -top) * 1.1 - top * 0.03, top * 1.08, _HEIGHT - _BOTTOM, _TOP)
    marks = "".join(_mark(item, across.at(value), up, top) for item, value in zip(items, values, strict=True))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="drop against {label}">'
        f"{_grid(across, up, label, str(report.get('metric', '')))}{_bound(report, up)}{marks}</svg>"
    )


def _keys(report: Mapping[str, Any]) -> str:
    """What the colours mean, of those that occur."""
    seen = {item["verdict"] for item in drawn(report)}
    return "".join(
        f'<span class=key><i style="border-color:{colour};background:{colour if is_filled else "#fff"}"></i>'
        f"{escape(verdict)}</span>"
        for verdict, (colour, is_filled) in _MARKS.items()
        if verdict in seen
    )


def _grid(across: _Axis, up: _Axis, label: str, metric: str) -> str:
    lines = [
        f'<line x1="{across.at(tick):.1f}" y1="{_TOP}" x2="{across.at(tick):.1f}" y2="{_HEIGHT - _BOTTOM}" '
        f'stroke="#eee"/><text x="{across.at(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:g}×'
        "</text>"
        for tick in across.ticks()
    ]
    lines += [
        f'<line x1="{_LEFT}" y1="{up.at(tick):.1f}" x2="{_WIDTH - _RIGHT}" y2="{up.at(tick):.1f}" stroke="#eee"/>'
        f'<text x="{_LEFT - 6}" y="{up.at(tick) + 4:.1f}" text-anchor="end">{tick:.3g}</text>'
        for tick in up.ticks()
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return "".join(lines) + (
        f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{label}</text>'
        f'<text x="{_LEFT - 52}" y="{_TOP - 14}">drop of {escape(metric)}</text>'
    )


def _bound(report: Mapping[str, Any], up: _Axis) -> str:
    if "max_drop" not in report:
        return ""
    height = up.at(report["max_drop"])
    return (
        f'<line x1="{_LEFT}" y1="{height:.1f}" x2="{_WIDTH - _RIGHT}" y2="{height:.1f}" stroke="#d55e00" '
        f'stroke-dasharray="5 4"/><text x="{_LEFT + 4}" y="{height - 5:.1f}" style="fill:#d55e00">bound '
        f"{report['max_drop']:g}</text>"
    )


def _mark(item: Mapping[str, Any], x: float, up: _Axis, top: float) -> str:
    colour, is_filled = _MARKS.get(item["verdict"], ("#888888", False))
    drop, low, high = (min(max(item["drop"][key], up.low), top) for key in ("drop", "low", "high"))
    is_chosen = item["verdict"] in {"chosen", "done"}
    name = (
        f'<text x="{x - 9:.1f}" y="{up.at(drop) - 8:.1f}" text-anchor="end" class="name" style="fill:{colour}">'
        f"{escape(item['name'])}</text>"
        if is_chosen
        else ""
    )
    return (
        f"<g><title>{escape(item['name'])}: {escape(item['verdict'])}. {escape(item['reason'])}</title>"
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up.at(low):.1f}" y2="{up.at(high):.1f}" '
        f'stroke="{colour}" opacity=".45"/>'
        f'<circle cx="{x:.1f}" cy="{up.at(drop):.1f}" r="{6.5 if is_chosen else 4}" stroke="{colour}" '
        f'stroke-width="1.5" fill="{colour if is_filled else "#fff"}"/>{name}</g>'
    )


def _row(item: Mapping[str, Any]) -> str:
    drop = item.get("drop")
    cells: Iterator[str] = iter(
        [
            f"{drop['drop']:.4f} ({drop['low']:.4f} to {drop['high']:.4f}, {drop['rows']} rows)" if drop else "",
            *(_speed(item.get(key)) for key in ("batch_1", "batch_32")),
            f"{item['size_ratio']:.2f}×" if "size_ratio" in item else "",
        ]
    )
    numbers = "".join(f"<td class=n>{cell}</td>" for cell in cells)
    chosen = " class=chosen" if item["verdict"] in {"chosen", "done"} else ""
    return (
        f"<tr{chosen}><td>{escape(item['name'])}</td>{numbers}<td>{escape(item['verdict'])}</td>"
        f"<td>{escape(item['reason'])}</td></tr>"
    )


def _speed(speed: Mapping[str, float] | None) -> str:
    return f"{speed['ratio']:.2f}× ({speed['low']:.2f} to {speed['high']:.2f})" if speed else ""


def _asked(report: Mapping[str, Any]) -> str:
    if "goal" not in report:
        return f"An explicit plan: {', '.join(report['plan'])}."
    rows: Mapping[str, int] = report["rows"]
    return (
        f"Goal {report['goal']}, {report['metric']} may drop by {report['max_drop']:g}. {sum(rows.values())} rows: "
        f"{rows['fit']} to calibrate, {rows['choose']} to choose, {rows['judge']} for the verdict. {report['reason']}"
    )


def _machine(machine: Mapping[str, Any]) -> str:
    sets: Sequence[str] = machine["instructions"]
    return f"{machine['processor']} ({', '.join(sets)}), onnxruntime {machine['onnxruntime']}"


def _round_step(raw: float) -> float:
    power = 10 ** math.floor(math.log10(raw))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= raw))
