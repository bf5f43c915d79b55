"""The picture of a report by matplotlib, for where HTML does not go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelserve.errors import MissingExtraError
from modelserve.optimize.picture import drawn, top_of, value_of


def draw(
    report: Mapping[str, Any], path: Path, panels: Sequence[tuple[str, str]], marks: Mapping[str, tuple[str, bool]]
) -> None:
    """Write both panels into `path`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("An image needs matplotlib: pip install matplotlib. HTML needs nothing.") from error
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (key, label) in zip(axes, panels, strict=True):
        _panel(axis, report, key, label, marks)
    axes[0].set_ylabel(f"drop of {report.get('metric', '')}")
    handles = {name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle(f"Chosen: {report['chosen']}" if report["chosen"] else "The original stays", weight="bold")
    figure.savefig(path, dpi=150)


def _panel(axis: Any, report: Mapping[str, Any], key: str, label: str, marks: Mapping[str, tuple[str, bool]]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    top = top_of(report)
    for item in drawn(report):
        _mark(axis, item, value_of(item, key), top, marks)
    if "max_drop" in report:
        axis.axhline(report["max_drop"], color="#d55e00", linestyle="--", linewidth=1)
        # In a fraction of the width, as the axis is logarithmic.
        where = axis.get_yaxis_transform()
        axis.text(
            0.01, report["max_drop"], f"bound {report['max_drop']:g}", color="#d55e00", va="bottom", transform=where
        )
    axis.set_xscale("log")
    axis.set_xticks([tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100) if _shows(axis, tick)])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}×"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(label)
    axis.set_ylim(top=top * 1.08)
    axis.grid(color="#eeeeee")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _shows(axis: Any, tick: float) -> bool:
    low, high = axis.get_xlim()
    return bool(low / 1.1 <= tick <= high * 1.1)


def _mark(axis: Any, item: Mapping[str, Any], x: float, top: float, marks: Mapping[str, tuple[str, bool]]) -> None:
    from matplotlib.patheffects import withStroke

    colour, is_filled = marks.get(item["verdict"], ("#888888", False))
    drop, low, high = (min(item["drop"][key], top) for key in ("drop", "low", "high"))
    is_chosen = item["verdict"] in {"chosen", "done"}
    axis.plot([x, x], [max(low, -top), high], color=colour, alpha=0.4, linewidth=1)
    axis.plot(
        [x],
        [drop],
        marker="o",
        linestyle="none",
        color=colour,
        markersize=10 if is_chosen else 6,
        markerfacecolor=colour if is_filled else "white",
        label=item["verdict"],
    )
    if is_chosen:
        name = axis.annotate(
            item["name"], (x, drop), (-9, 9), textcoords="offset points", ha="right", color=colour, weight="bold"
        )
        name.set_path_effects([withStroke(linewidth=4, foreground="white")])  # readable across other marks
