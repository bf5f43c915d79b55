"""What bench_optimize.py found, as one JSON file that grows part by part, and the page and chart made of it.

    measured part ──record──► results.json ──write_page──► results.md, results.png

No figure on the page is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reached on a processor with AVX-512 VNNI, as ratios to float32."""

    model: str
    bound: float
    speed: float
    smaller: float = 1.0


TARGETS = (
    Target("mlp", 0.01, 9.0, 30.0),
    Target("cnn", 0.01, 6.0, 12.0),
    Target("forest", 0.01, 5.0),
    Target("minilm", 0.01, 2.3, 3.8),
    Target("minilm", 0.001, 1.2, 3.5),
)
#: Agreement of structured pruning alone, without labels or training.
PRUNING_TARGETS = {"mlp": 0.985, "cnn": 0.995}


#: The models in the order of the page; colours that most kinds of eyes tell apart (Okabe & Ito).
_COLOURS = {"mlp": "#0072b2", "cnn": "#009e73", "forest": "#e69f00", "boosted": "#cc79a7", "minilm": "#d55e00"}


def record(stem: Path, machine: Mapping[str, Any], part: Mapping[str, Any]) -> None:
    """Add a part ({"searches": {...}, "lines": {...}}) to the results of this machine, and write the page anew."""
    path = stem.with_suffix(".json")
    content = json.loads(path.read_text()) if path.exists() else {}
    if content.get("machine") != dict(machine):
        content = {"machine": dict(machine), "searches": {}, "pruning": {}, "overruns": []}
    for key in ("searches", "pruning"):
        content[key] |= part.get(key, {})
    content["overruns"] = part.get("overruns", content["overruns"])
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    write_page(stem, content)


def write_page(stem: Path, content: Mapping[str, Any]) -> None:
    """The page, and its chart beside it."""
    draw(stem.with_suffix(".png"), content)
    stem.with_suffix(".md").write_text("\n".join(_page(stem, content)) + "\n")


def _page(stem: Path, content: Mapping[str, Any]) -> Iterator[str]:
    machine = content["machine"]
    yield from ("# What the optimiser finds", "", "`make bench-optimize` writes this page; no figure is typed in.")
    yield (
        f"Measured on {machine['processor']} ({', '.join(machine['instructions']) or 'no instruction set known'}), "
        f"{machine['cores']} cores, onnxruntime {machine['onnxruntime']}, one thread."
    )
    yield "Ratios are float32 / candidate, from interleaved runs in one process."
    yield "`tests/benchmarks/bench_optimize.py` says what the models and their rows are."
    yield from ("", f"![Chosen models]({stem.with_suffix('.png').name})", "", "## Chosen", "")
    yield "| model | goal | bound | chosen | as fast | smaller | drop (at most), rows |"
    yield "|---|---|---|---|---|---|---|"
    yield from (_chosen_row(name, found) for name, found in _ordered(content))
    yield from ("", "## Targets", "")
    yield "The targets are meant for a processor with AVX-512 VNNI; `avx512_vnni` stands above where this one has it."
    yield from ("", "| model | bound | speed | smaller |", "|---|---|---|---|")
    yield from (row for target in TARGETS for row in _target_rows(target, content))
    yield from _pruning(content)
    yield from ("", "## Overruns", "", *(content["overruns"] or ["Not measured."]))
    for name, found in _ordered(content):
        yield from ("", f"## All candidates: {name}", "", *_candidates(found))


def _ordered(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    def place(item: tuple[str, Mapping[str, Any]]) -> tuple[int, str, float]:
        report = item[1]["report"]
        return list(_COLOURS).index(item[1]["model"]), report["goal"], report["max_drop"]

    return sorted(content["searches"].items(), key=place)


def _chosen_row(_name: str, found: Mapping[str, Any]) -> str:
    report = found["report"]
    start = f"| {found['model']} | {report['goal']} | {report['metric']} {report['max_drop']:g} |"
    item = _chosen(report)
    if item is None:
        return f"{start} {report['reason']} | | | |"
    drop = item["drop"]
    speed = f"{found['speed']:.2f} (batch {found['batch']})"
    return (
        f"{start} {item['name']} | {speed} | {item['size_ratio']:.2f} | "
        f"{drop['drop']:.5f} ({drop['high']:.5f}), {drop['rows']} |"
    )


def _target_rows(target: Target, content: Mapping[str, Any]) -> Iterator[str]:
    searches = [found for _, found in _ordered(content) if found["model"] == target.model]
    searches = [found for found in searches if found["report"]["max_drop"] == target.bound]
    if not searches:
        yield f"| {target.model} | {target.bound:g} | not measured, of {target.speed:g} | of {target.smaller:g} |"
    for found in searches:
        report = found["report"]
        item = _chosen(report)
        if item is None:
            yield f"| {target.model}, {report['goal']} | {target.bound:g} | **missed**: {report['reason']} | |"
            continue
        speed, smaller = found["speed"], item["size_ratio"]
        yield (
            f"| {target.model}, {report['goal']} | {report['metric']} {target.bound:g} | "
            f"{speed:.2f} of {target.speed:g}: {_verdict(speed >= target.speed)} | "
            f"{smaller:.2f} of {target.smaller:g}: {_verdict(smaller >= target.smaller)} |"
        )


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _pruning(content: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## Structured pruning alone, without labels or training", "")
    yield from ("| model | units gone | agreement | rows | target |", "|---|---|---|---|---|")
    for name, found in content["pruning"].items():
        is_met = found["agreement"] >= PRUNING_TARGETS[name]
        yield (
            f"| {name} | {found['amount']:.0%} | {found['agreement']:.4f} | {found['rows']} | "
            f"{PRUNING_TARGETS[name]}: {_verdict(is_met)} |"
        )


def _candidates(found: Mapping[str, Any]) -> Iterator[str]:
    yield "| candidate | smaller | batch 1 | batch 32 | drop (limits) | verdict |"
    yield "|---|---|---|---|---|---|"
    for item in found["report"]["candidates"]:
        drop = item.get("drop")
        said = (
            f"{drop['drop']:.5f} ({drop['low']:.5f} to {drop['high']:.5f}), {drop['rows']}" if drop else item["reason"]
        )
        smaller = f"{item['size_ratio']:.2f}" if "size_ratio" in item else ""
        speeds = f"{_speed(item.get('batch_1'))} | {_speed(item.get('batch_32'))}"
        yield f"| {item['name']} | {smaller} | {speeds} | {said} | {item['verdict']} |"


def _speed(speed: Mapping[str, float] | None) -> str:
    return f"{speed['ratio']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})" if speed else ""


def _chosen(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((item for item in report["candidates"] if item["verdict"] == "chosen"), None)


def draw(path: Path, content: Mapping[str, Any]) -> None:
    """Every chosen model: how much smaller across, how much faster up; a point for each bound."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    named: set[str] = set()
    for _, found in _ordered(content):
        item, model = _chosen(found["report"]), found["model"]
        if item is None:
            continue
        point = (item["size_ratio"], found["speed"])
        marker = "o" if found["report"]["goal"] != "size" else "s"
        axis.plot(*point, marker, color=_COLOURS[model], markersize=9, label=model if model not in named else None)
        axis.annotate(f"{found['report']['max_drop']:g}", point, (7, 5), textcoords="offset points", fontsize=9)
        named.add(model)
    axis.set(xscale="log", yscale="log", xlabel="times smaller", ylabel="times as fast as float32")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}×"))
        scale.set_minor_formatter(NullFormatter())
    for set_ticks, limits in ((axis.set_xticks, axis.get_xlim()), (axis.set_yticks, axis.get_ylim())):
        set_ticks([tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100) if limits[0] <= tick <= limits[1]])
    axis.axhline(1, color="#888888", linewidth=1)
    axis.set_title("Chosen by Auto; beside each point its bound, squares for goal='size'")
    axis.grid(color="#eeeeee")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
