"""What bench_executor.py found: one JSON file that grows model by model, and the page and chart made of it.

    medians of a model ──record──► results.json ──► results.md, results.png

No figure on the page is written by hand.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table

#: Contender, figure, median of the rounds.
Medians: TypeAlias = Mapping[str, Mapping[str, float]]

RAW = "raw onnxruntime"
EXECUTOR = "ProcessPoolExecutor, 2"
POOL = "multiprocessing.Pool, 2"
ONE, TWO = "modelserve, 1 worker", "modelserve, 2 workers"
CALLER = "one caller, p50 µs"
TASKS = "64 tasks, requests/s"
ARRAY = "one array, rows/s"
# Figures that are no column of a table, but what a ratio is made of.
RAW_PAIR = "two raw processes at once, requests/s"
RAW_PAIR_ARRAY = "two raw processes at once, half of the array each, rows/s"
COPY = "one copy of a row in memory, µs"
_HIDDEN = {RAW_PAIR, RAW_PAIR_ARRAY, COPY}
ADDS = "adds to raw, µs"


def columns(medians: Medians) -> list[str]:
    """The figures to show, in the order in which they were measured."""
    return list(dict.fromkeys(name for figures in medians.values() for name in figures if name not in _HIDDEN))


def rows(medians: Medians) -> Iterator[list[str]]:
    """A contender and its figures; empty where it has none."""
    for contender, figures in medians.items():
        adds = "" if contender == RAW else f"{figures[CALLER] - medians[RAW][CALLER]:,.1f}"
        shown = [f"{figures[name]:,.0f}" if name in figures else "" for name in columns(medians)]
        yield [contender, *shown, adds]


def show(console: Console, name: str, medians: Medians) -> None:
    """One model's table, in the terminal."""
    table = Table(title=name, box=box.SIMPLE_HEAD)
    for heading in ["", *columns(medians), ADDS]:
        table.add_column(heading.replace(", ", "\n"), justify="right" if heading else "left", no_wrap=not heading)
    for row in rows(medians):
        table.add_row(*row)
    console.print(table)


def ratios(medians: Medians) -> dict[str, tuple[float, str]]:
    """What the targets are about, each as a ratio within the run, and the target."""
    raw = medians[RAW][CALLER]
    adds = {name: figures[CALLER] - raw for name, figures in medians.items() if name != RAW}
    best = max(medians[ONE][TASKS], medians[TWO][TASKS])
    return {
        "ProcessPoolExecutor adds / modelserve adds, 2 workers": (adds[EXECUTOR] / adds[TWO], "≥ 6"),
        "ProcessPoolExecutor adds / modelserve adds, 1 worker": (adds[EXECUTOR] / adds[ONE], "≥ 6"),
        "64 tasks, modelserve / ProcessPoolExecutor": (best / medians[EXECUTOR][TASKS], "≥ 10 (tiny)"),
        "one array, 2 workers / two raw processes": (medians[TWO][ARRAY] / medians[POOL][RAW_PAIR_ARRAY], "≥ 0.95"),
        "64 tasks, 2 workers / two raw processes": (
            medians[TWO][TASKS] / medians[POOL][RAW_PAIR],
            "≥ 0.95 (transformer)",
        ),
        "modelserve adds / (3 copies of a row + 40 µs)": (adds[TWO] / (3 * medians[RAW][COPY] + 40), "≤ 1 (image)"),
    }


def machine() -> dict[str, str]:
    """Where a figure was measured."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def record(stem: Path, found: Mapping[str, Any]) -> None:
    """Add what was found to the results of this machine, and write page and chart anew.

    Args:
        found: "models": medians by model; "life": label and text of what is no ratio.
    """
    path = stem.with_suffix(".json")
    content = json.loads(path.read_text()) if path.exists() else {}
    if content.get("machine") != machine():
        content = {"machine": machine(), "models": {}, "life": {}}
    content["models"] |= found.get("models", {})
    content["life"] |= found.get("life", {})
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    stem.with_suffix(".md").write_text("\n".join(_page(stem, content)) + "\n")
    _draw(stem.with_suffix(".png"), content["models"])


def _page(stem: Path, content: Mapping[str, Any]) -> Iterator[str]:
    where = content["machine"]
    yield "# What the local executor was measured to do"
    yield ""
    yield "Written by `make bench-executor`; nothing here is typed by hand."
    yield (
        f"{where['cores']} cores of a shared {where['processor']}, Python {where['python']}, "
        f"onnxruntime {where['onnxruntime']}, one thread a session."
    )
    yield "Medians of interleaved rounds; what counts are the ratios within a run, single figures move by a third."
    yield ""
    yield f"![Requests per second, 64 asyncio callers]({stem.name}.png)"
    yield ""
    yield from _ratio_table(content["models"])
    for name, medians in content["models"].items():
        yield ""
        yield f"## {name}"
        yield ""
        yield from _markdown(["", *columns(medians), ADDS], rows(medians))
    yield ""
    yield "## Start, replacement, memory"
    yield ""
    yield from _markdown(["what", "measured"], ([name, text] for name, text in content["life"].items()))


def _ratio_table(models: Mapping[str, Medians]) -> Iterator[str]:
    by_model = {name: ratios(medians) for name, medians in models.items()}
    labels = {label: target for found in by_model.values() for label, (_, target) in found.items()}
    lines = (
        [label, target, *(f"{by_model[name][label][0]:.2f}" for name in by_model)] for label, target in labels.items()
    )
    yield from _markdown(["ratio", "target", *by_model], lines)


def _markdown(headings: list[str], lines: Iterator[list[str]] | Any) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for line in lines:
        yield f"| {' | '.join(line)} |"


def _draw(into: Path, models: Mapping[str, Medians]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(models), figsize=(4.2 * len(models), 3.2), layout="constrained", squeeze=False)
    for axis, (name, medians) in zip(np.ravel(axes), models.items(), strict=True):
        shown = {contender: figures[TASKS] for contender, figures in medians.items() if TASKS in figures}
        colours = ["#1f6f8b" if contender.startswith("modelserve") else "#b0b0b0" for contender in shown]
        bars = axis.barh(list(shown), list(shown.values()), color=colours)
        axis.bar_label(bars, [f"{value:,.0f}" for value in shown.values()], padding=3, fontsize=8)
        axis.set_title(name, fontsize=10)
        axis.set_xlim(0, max(shown.values()) * 1.3)
        axis.locator_params(axis="x", nbins=4)
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Requests per second, 64 asyncio callers, one row each", fontsize=11)
    figure.savefig(into, dpi=150)
    plt.close(figure)
