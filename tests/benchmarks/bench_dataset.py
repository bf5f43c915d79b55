"""Whole data sets beside the limit and the peers. `make bench-dataset`.

5 million rows of 64 floats (Parquet) through the tiny model and the MLP, 2,000 pictures (JPEG) through the image model.
The limit is the time of the model alone, by all processes at once on arrays in memory, plus that of a plain read (of
pictures: decoding, by all at once), plus that of a plain write; nothing overlaps in it, so that it can be passed.

Each way runs in processes of its own, rounds are interleaved, and a figure is the median of the rounds. Results are
kept in a file, so that the bench can be run in pieces: `--only mlp`, then `--only image`, ..., then `--only report`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dataset_contenders import FEATURES, WAYS
from executor_life import descendants, pss
from rich import box
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
console = Console(width=110)
_LOOK_S = 0.25
_RESULTS = "results.json"
MODELS = ("tiny", "mlp", "image")
Results = dict[str, list[dict[str, float]]]


def prepare(folder: Path, rows: int, pictures: int) -> dict[str, Any]:
    """The models and the files, made once."""
    os.environ["MODELSERVE_HOME"] = str(folder / "home")
    from executor_models import MODELS as MADE

    import modelserve as ms

    place: dict[str, Any] = {"bundle": {}, "rows": {"tiny": rows, "mlp": rows, "image": pictures}}
    for name in ("tiny", "mlp"):
        place["bundle"][name] = str(MADE[name]()[0].path)
    plain = MADE["image"]()[0]
    seen = ms.ImageInput(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    place["bundle"]["image"] = str(ms.Model(str(plain.model_path), inputs=seen).bundle().path)
    place["table"] = {count: str(_table(folder, count)) for count in sorted({rows, max(1, rows // 5)})}
    place["pictures"] = str(_pictures(folder, pictures))
    return place


def _table(folder: Path, rows: int) -> Path:
    path = folder / f"rows-{rows}.parquet"
    if path.exists():
        return path
    random = np.random.default_rng(0)
    schema = pa.schema([("id", pa.int64()), *((name, pa.float32()) for name in FEATURES)])
    with pq.ParquetWriter(path.with_suffix(".tmp"), schema, use_dictionary=False, compression="snappy") as writer:
        for start in range(0, rows, 250_000):
            some = min(250_000, rows - start)
            columns = random.standard_normal((len(FEATURES), some), dtype=np.float32)
            writer.write_table(pa.table([np.arange(start, start + some), *columns], schema=schema))
    return path.with_suffix(".tmp").rename(path)


def _pictures(folder: Path, count: int) -> Path:
    from PIL import Image

    place = folder / f"pictures-{count}"
    place.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        path = place / f"{number:05d}.jpg"
        if not path.exists():
            # Smooth, as photographs are: noise would take a decoder much longer.
            coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
            coarse.resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=90)
    return place


def run(way: str, model: str, place: dict[str, Any], folder: Path, rows: int | None = None) -> dict[str, float]:
    """One way in processes of its own; its seconds and the most memory that they had together (PSS, MB)."""
    count = rows or place["rows"][model]
    source = place["pictures"] if model == "image" else place["table"][count]
    command = [
        sys.executable,
        "dataset_contenders.py",
        way,
        place["bundle"][model],
        source,
        str(folder / "out"),
        str(count),
    ]
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0.0]
    watching = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watching.start()
    out, err = process.communicate()
    watching.join()
    if process.returncode:
        raise RuntimeError(f"{way} failed for {model}:\n{err[-3000:]}")
    found: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    if way == "limit":
        found["seconds"] = sum(found.values())
    return {**found, "peak_mb": peak[0]}


def keep(results: Results, folder: Path) -> None:
    (folder / _RESULTS).write_text(json.dumps(results))


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        total = 0.0
        for pid in descendants():
            try:
                total += pss(pid)
            except OSError:  # it has just ended
                continue
        peak[0] = max(peak[0], total / 1e6)
        time.sleep(_LOOK_S)


def measure(model: str, ways: list[str], rounds: int, place: dict[str, Any], folder: Path, results: Results) -> None:
    for _ in range(rounds):
        for way in ways:
            found = run(way, model, place, folder)
            results.setdefault(f"{model}/{way}", []).append(found)
            keep(results, folder)  # after each, so that a bench that is cut short loses one figure
            shown = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
            console.print(f"{model}, {way}: {shown}", soft_wrap=True)


def memory(place: dict[str, Any], folder: Path, results: Results) -> None:
    for rows in place["table"]:
        for model in ("tiny", "mlp"):
            results.setdefault(f"memory/{model}/{rows}", []).append(run("modelserve", model, place, folder, rows))
            keep(results, folder)


def report(results: Results, place: dict[str, Any], chart: Path | None) -> None:
    for model in MODELS:
        found = {way: results[f"{model}/{way}"] for way in WAYS if f"{model}/{way}" in results}
        if found:
            _show(model, found, place["rows"][model])
    table = Table(title="Peak memory of all processes (PSS), modelserve", box=box.SIMPLE_HEAD)
    for heading in ("model", "rows", "peak MB"):
        table.add_column(heading, justify="right")
    for key in [key for key in results if key.startswith("memory/")]:
        _, model, rows = key.split("/")
        table.add_row(model, f"{int(rows):,}", f"{statistics.median(one['peak_mb'] for one in results[key]):,.0f}")
    if table.row_count:
        console.print(table)
    if chart is not None:
        draw(results, place, chart)


def _seconds(found: list[dict[str, float]]) -> float:
    return statistics.median(one["seconds"] for one in found)


def _show(model: str, found: Results, rows: int) -> None:
    what = "pictures" if model == "image" else "rows of 64 floats"
    table = Table(title=f"{model}: {rows:,} {what}, {len(next(iter(found.values())))} rounds", box=box.SIMPLE_HEAD)
    for heading in ("", "seconds", "rows/s", "of the limit", "peak MB"):
        table.add_column(heading, justify="right")
    limit = _seconds(found["limit"]) if "limit" in found else None
    for way, runs in found.items():
        seconds = _seconds(runs)
        peak = statistics.median(one["peak_mb"] for one in runs)
        share = f"{limit / seconds:.2f}" if limit else ""
        table.add_row(way, f"{seconds:.2f}", f"{rows / seconds:,.0f}", share, f"{peak:,.0f}" if way != "limit" else "")
    console.print(table)
    if limit:
        parts = {name: statistics.median(one[name] for one in found["limit"]) for name in ("model", "read", "write")}
        console.print("  the limit: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items()))
    if "Ray Data" in found:
        console.print(f"  modelserve / Ray Data: {_seconds(found['Ray Data']) / _seconds(found['modelserve']):.1f}")


def draw(results: Results, place: dict[str, Any], into: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models = [model for model in MODELS if f"{model}/modelserve" in results]
    figure, axes = plt.subplots(1, len(models), figsize=(4.4 * len(models), 3.2), layout="constrained")
    for axis, model in zip(np.atleast_1d(axes), models, strict=True):
        ways = [way for way in WAYS if f"{model}/{way}" in results]
        rates = [place["rows"][model] / _seconds(results[f"{model}/{way}"]) for way in ways]
        colours = [
            "#1f6f8b" if way.startswith("modelserve") else "#d9a441" if way == "limit" else "#b0b0b0" for way in ways
        ]
        bars = axis.barh(ways, rates, color=colours)
        axis.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3, fontsize=8)
        axis.set_title(f"{model}: {place['rows'][model]:,} {'pictures' if model == 'image' else 'rows'}", fontsize=10)
        axis.set_xlim(0, max(rates) * 1.3)
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Rows per second, from files to files", fontsize=11)
    figure.savefig(into, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="prepare,tiny,mlp,image,memory,report", help="these steps, by commas")
    parser.add_argument("--ways", default=",".join(way for way in WAYS if way != "modelserve on Ray"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "modelserve-bench-dataset")
    parser.add_argument("--chart", type=Path, help="write the chart as PNG")
    arguments = parser.parse_args()
    folder, steps = arguments.folder, arguments.only.split(",")
    folder.mkdir(exist_ok=True)
    kept = folder / _RESULTS
    place = prepare(folder, arguments.rows, arguments.pictures)
    results: Results = json.loads(kept.read_text()) if kept.exists() and "prepare" not in steps else {}
    for step in steps:
        if step in MODELS:
            measure(step, arguments.ways.split(","), arguments.rounds, place, folder, results)
        elif step == "memory":
            memory(place, folder, results)
    if "report" in steps:
        report(results, place, arguments.chart)


if __name__ == "__main__":
    main()
