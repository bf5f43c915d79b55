"""What `bench_server.py` recorded, as Markdown tables and as a chart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_CELLS = {
    "tiny": ("JSON 1", "JSON 16", "JSON 64", "binary 1", "binary 64"),
    "mlp": ("JSON 1", "JSON 16", "JSON 64", "binary 1", "binary 64"),
    "transformer": ("JSON 1", "JSON 16", "JSON 64"),
    "image": ("binary 1", "binary 16", "binary 64"),
}
Record = list[dict[str, Any]]


def table(record: Record) -> str:
    """One table a model: medians over the rounds of requests/s and of the latencies in microseconds."""
    parts = []
    for model, cells in _CELLS.items():
        own = [one for one in record if one["model"] == model and "loads" in one]
        if not own:
            continue
        head = ["requests/s (p50 / p99 µs)", *(cell.replace(" ", ", ") for cell in cells), "start s", "memory MiB"]
        rows = [[server, *_row(own, server, cells)] for server in _servers(own)]
        parts.append(f"**{model}**\n\n{_markdown(head, rows)}")
    killed = [one for one in record if "kill" in one]
    if killed:
        rows = [[server, *_killed(killed, server)] for server in _servers(killed)]
        parts.append(_markdown(["a worker killed under 8 callers", "failed", "as", "slowest s"], rows))
    return "\n\n".join(parts)


def chart(record: Record, path: Path) -> None:
    """Requests/s at 64 connections, on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    chosen = {"tiny": "JSON 64", "mlp": "JSON 64", "transformer": "JSON 64", "image": "binary 64"}
    figure, axes = plt.subplots(1, len(chosen), figsize=(14, 3.6))
    for axis, (model, cell) in zip(axes, chosen.items(), strict=True):
        own = [one for one in record if one["model"] == model and "loads" in one]
        rates = {server: _median(own, server, _rate(cell)) for server in _servers(own)}
        shown = {server: rate for server, rate in rates.items() if rate}
        names = list(reversed(shown))
        bars = axis.barh(names, [shown[name] for name in names], color=[_colour(name) for name in names])
        axis.bar_label(bars, labels=[f" {shown[name]:,.0f}" for name in names], fontsize=8)
        axis.set_title(f"{model}, {cell.replace(' ', ', ')}", fontsize=10)
        axis.set_xscale("log")
        axis.set_xlim(right=max(shown.values(), default=1) * 6)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("requests/s at 64 connections (logarithmic)", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None}, dpi=110)


def _colour(name: str) -> str:
    return "#1f6f5c" if name.startswith("modelserve") else "#b9c4c9"


def _row(record: Record, server: str, cells: Iterable[str]) -> list[str]:
    texts = []
    for cell in cells:
        rate, p50, p99 = (_median(record, server, _of(cell, part)) for part in ("requests_per_s", "p50_us", "p99_us"))
        failed = sum(one["loads"][cell]["failed"] for one in _own(record, server) if cell in one["loads"])
        times = f" ({p50:,.0f} / {p99:,.0f})" if rate and p50 else ""
        texts.append(f"{rate:,.0f}{times}{f' {failed} failed' if failed else ''}" if rate else "–")
    start, memory = (
        _median(record, server, lambda one, part=part: one.get(part)) for part in ("start_s", "memory_mib")
    )
    return [*texts, f"{start:.1f}" if start else "–", f"{memory:,.0f}" if memory else "–"]


def _killed(record: Record, server: str) -> list[str]:
    own = [one["kill"] for one in _own(record, server)]
    kinds = sorted({kind for one in own for kind in one["kinds"]})
    failed = ", ".join(str(one["failed"]) for one in own)
    return [failed, ", ".join(kinds) or "–", f"{max(one['slowest_s'] for one in own):.2f}"]


def _of(cell: str, part: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda one: one["loads"].get(cell, {}).get(part)


def _rate(cell: str) -> Callable[[dict[str, Any]], float | None]:
    return _of(cell, "requests_per_s")


def _median(record: Record, server: str, part: Callable[[dict[str, Any]], float | None]) -> float | None:
    values = [value for one in _own(record, server) if (value := part(one)) is not None]
    return statistics.median(values) if values else None


def _own(record: Record, server: str) -> Record:
    return [one for one in record if one["server"] == server]


def _servers(record: Record) -> list[str]:
    return list(dict.fromkeys(one["server"] for one in record))


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
