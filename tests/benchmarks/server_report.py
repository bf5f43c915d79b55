"""What `bench_server.py` recorded, as Markdown tables and as a chart."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from server_candidates import PACKAGED

_CELLS = {
    "tiny": ("JSON 1", "JSON 16", "JSON 64", "binary 1", "binary 64"),
    "mlp": ("JSON 1", "JSON 16", "JSON 64", "binary 1", "binary 64"),
    "transformer": ("JSON 1", "JSON 16", "JSON 64"),
    "image": ("binary 1", "binary 16", "binary 64"),
}
_CHARTED = (
    ("tiny", "JSON 64"),
    ("tiny", "binary 64"),
    ("mlp", "JSON 64"),
    ("mlp", "binary 64"),
    ("transformer", "JSON 64"),
    ("image", "binary 64"),
)
OURS, TUNED = "modelserve", "FastAPI tuned"
#: The same rows by onnxruntime alone, in two processes.
RAW = "onnxruntime alone"
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


def page(record: Record, path: Path, chart_name: str) -> None:
    """All of it as a page of the docs; no figure on it is written by hand."""
    lines = [
        "# What the server was measured to do",
        "",
        "Written by `make bench-server`; nothing here is typed by hand.",
        f"{len(os.sched_getaffinity(0))} processors, {platform.machine()}, which server, workers and wrk share. "
        "What counts are the ratios within this run.",
        "",
        f"![Requests per second at 64 connections]({chart_name})",
        "",
        _markdown(["ratio", "target", "measured"], list(_ratios(record))),
        "",
        table(record),
    ]
    path.write_text("\n".join(lines) + "\n")


def _ratios(record: Record) -> Iterator[list[str]]:
    """What was to be reached, as ratios of ours with two workers to others in the same run."""

    def found(model: str, server: str, part: Callable[[dict[str, Any]], float | None]) -> float:
        return _median([one for one in record if one["model"] == model and "loads" in one], server, part) or math.nan

    def best(model: str, part: Callable[[dict[str, Any]], float | None], choose: Callable[..., float]) -> float:
        values = [value for peer in PACKAGED if not math.isnan(value := found(model, peer, part))]
        return choose(values, default=math.nan)

    for model in ("tiny", "mlp"):
        for kind in ("JSON", "binary"):
            ours = found(model, OURS, _rate(f"{kind} 64"))
            packaged, tuned = best(model, _rate(f"{kind} 64"), max), found(model, TUNED, _rate(f"{kind} 64"))
            name = f"{model}, {kind}, 64 connections: requests/s"
            yield [f"{name} / the best packaged peer's", "≥ 5", _shown(ours / packaged)]
            yield [f"{name} / those of FastAPI tuned by hand", "> 1", _shown(ours / tuned)]
            latency = _of(f"{kind} 1", "p50_us")
            alone = found(model, OURS, latency) / found(model, TUNED, latency)
            yield [f"{model}, {kind}, 1 connection: p50 / FastAPI's", "< 1", _shown(alone)]
    raw = found("transformer", RAW, _rate("JSON 64"))
    most = max(found("transformer", OURS, _rate(f"JSON {connections}")) for connections in (16, 64))
    yield ["transformer: requests/s / onnxruntime alone", "≥ 0.95", _shown(most / raw)]
    rate, latency = _rate("binary 64"), _of("binary 1", "p50_us")
    yield [
        "image, 64 connections: requests/s / the best packaged peer's",
        "≥ 1.4",
        _shown(found("image", OURS, rate) / best("image", rate, max)),
    ]
    yield [
        "image, 1 connection: p50 / the best packaged peer's",
        "≤ 0.5",
        _shown(found("image", OURS, latency) / best("image", latency, min)),
    ]
    for label, part in (("memory of all processes", "memory_mib"), ("start", "start_s")):
        least = best("tiny", lambda one, part=part: one.get(part), min)
        yield [
            f"tiny: {label} / the best packaged peer's",
            "< 1",
            _shown(found("tiny", OURS, lambda one, part=part: one.get(part)) / least),
        ]
    killed = [one["kill"] for one in record if "kill" in one and one["server"] == OURS]
    failed = str(sum(one["failed"] for one in killed)) if killed else _shown(math.nan)
    yield ["requests that failed when a worker was killed", "0", failed]


def _shown(ratio: float) -> str:
    return "not measured" if math.isnan(ratio) else f"{ratio:.2f}"


def chart(record: Record, path: Path) -> None:
    """Requests/s at 64 connections, beside what onnxruntime does with nothing around it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 6.4))
    for axis, (model, cell) in zip(axes.flat, _CHARTED, strict=True):
        own = [one for one in record if one["model"] == model and "loads" in one]
        rates = {server: _median(own, server, _rate(cell)) for server in _servers(own)}
        limit = rates.pop(RAW, None)
        names = [server for server, rate in reversed(rates.items()) if rate]
        axis.set_visible(bool(names))
        bars = axis.barh(names, [rates[name] for name in names], color=[_colour(name) for name in names])
        axis.bar_label(bars, labels=[f" {rates[name]:,.0f}" for name in names], fontsize=8)
        beside = f" (onnxruntime alone: {limit:,.0f})" if limit else ""
        axis.set_title(f"{model}, {cell.split()[0]}{beside}", fontsize=9)
        axis.set_xlim(right=max((rates[name] for name in names), default=1) * 1.2)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("requests/s at 64 connections", fontsize=10)
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
