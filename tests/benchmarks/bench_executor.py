"""The local executor beside the raw runtime and Python's own pools, in one interleaved run. `make bench-executor`.

Every contender answers the same single-row requests with the same onnxruntime session settings (one thread each).
Rounds are interleaved, so that a busy moment of the machine falls on all; a figure is the median of the rounds.
What matters are the ratios between columns of one table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from modelserve.runtime import PoolSettings, WorkerPool

console = Console(width=110)

# Figures that are no column of the table, but what a ratio is made of.
RAW_PAIR = "two raw processes at once, requests/s"
RAW_PAIR_ARRAY = "two raw processes at once, half of the array each, rows/s"
COPY = "one copy of a row in memory, µs"
_HIDDEN = {RAW_PAIR, RAW_PAIR_ARRAY, COPY}


@dataclass
class Case:
    name: str
    path: Path
    row: np.ndarray
    input: str
    big: np.ndarray


@dataclass
class Contender:
    """How one way is asked. `batch` answers one big array by all its workers."""

    name: str
    call: Callable[[np.ndarray], Any]
    acall: Callable[[np.ndarray], Awaitable[Any]] | None = None
    close: Callable[[], None] = lambda: None
    race: Callable[[np.ndarray, float], list[tuple[int, float]]] | None = None
    figures: dict[str, list[float]] = field(default_factory=dict)


def cases(names: list[str], folder: Path) -> list[Case]:
    """The models of the facts: tiny, MLP, transformer (6 layers of 384, 64 tokens), image (3x224x224)."""
    from executor_models import MODELS

    made = []
    for name in names:
        bundle, row, big = MODELS[name]()
        made.append(Case(name, bundle.path, row, bundle.signature.inputs[0].name, big))
    return made


def contenders(case: Case) -> list[Contender]:
    import joblib
    from executor_models import run, start_worker

    import modelserve as ms
    from modelserve.bundle import Bundle
    from modelserve.session import load

    bundle = Bundle.open(case.path)
    session = load(bundle.model_path)
    model = str(bundle.model_path)
    found = [Contender("raw onnxruntime", lambda rows: session.run(None, {case.input: rows}))]
    for workers in (1, 2):
        deployment = ms.Model(bundle).serve(workers=workers, name=f"{case.name}-{workers}")
        found.append(
            Contender(
                f"modelserve, {workers} worker{'s' * (workers > 1)}",
                deployment.predict,
                deployment.apredict,
                deployment.close,
            )
        )
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(2, mp_context=spawn, initializer=start_worker, initargs=(model,))

    async def in_executor(rows: np.ndarray) -> Any:
        return await asyncio.get_running_loop().run_in_executor(executor, run, case.input, rows)

    found.append(
        Contender(
            "ProcessPoolExecutor, 2",
            lambda rows: executor.submit(run, case.input, rows).result(),
            in_executor,
            executor.shutdown,
        )
    )
    pool = spawn.Pool(2, start_worker, (model,))
    found.append(
        Contender(
            "multiprocessing.Pool, 2",
            lambda rows: pool.apply(run, (case.input, rows)),
            None,
            pool.terminate,
            lambda rows, seconds: raced(pool, case.input, rows, seconds),
        )
    )
    loky = joblib.externals.loky.get_reusable_executor(2, initializer=start_worker, initargs=(model,))
    found.append(
        Contender(
            "joblib/loky, 2",
            lambda rows: loky.submit(run, case.input, rows).result(),
            None,
            lambda: loky.shutdown(kill_workers=True),
        )
    )
    for contender in found:
        for _ in range(20):
            contender.call(case.row)
    return found


def raced(pool: Any, name: str, rows: np.ndarray, seconds: float) -> list[tuple[int, float]]:
    """What two processes do at once, each with its own session and nothing else: the limit of two workers."""
    from executor_models import race

    halves = [rows, rows] if len(rows) == 1 else np.array_split(rows, 2)
    start = time.time() + 0.2
    return [one.get() for one in [pool.apply_async(race, (name, half, start, seconds)) for half in halves]]


def one_caller(contender: Contender, row: np.ndarray, seconds: float) -> float:
    """Median microseconds of a call."""
    taken = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        contender.call(row)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e6


def many_threads(contender: Contender, row: np.ndarray, seconds: float, callers: int) -> float:
    """Requests per second."""
    counts = [0] * callers
    end = time.perf_counter() + seconds

    def ask(caller: int) -> None:
        while time.perf_counter() < end:
            contender.call(row)
            counts[caller] += 1

    threads = [threading.Thread(target=ask, args=(caller,)) for caller in range(callers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def many_tasks(contender: Contender, row: np.ndarray, seconds: float, callers: int) -> float:
    """Requests per second."""
    acall = contender.acall
    assert acall is not None

    async def ask_all() -> float:
        count = 0
        start = time.perf_counter()
        end = start + seconds

        async def ask() -> None:
            nonlocal count
            while time.perf_counter() < end:
                await acall(row)
                count += 1

        await asyncio.gather(*(ask() for _ in range(callers)))
        return count / (time.perf_counter() - start)

    return asyncio.run(ask_all())


def big_array(contender: Contender, rows: np.ndarray) -> float:
    """Rows per second of one large array."""
    start = time.perf_counter()
    contender.call(rows)
    return len(rows) / (time.perf_counter() - start)


def copy_time(rows: np.ndarray) -> float:
    """Microseconds to copy these rows from one place of memory to another."""
    places = [np.empty_like(rows) for _ in range(16)]
    taken = []
    for place in places * 20:
        start = time.perf_counter()
        np.copyto(place, rows)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e6


def measure(case: Case, rounds: int, seconds: float) -> list[Contender]:
    found = contenders(case)
    copied = found[0].figures.setdefault(COPY, [])
    try:
        for _ in range(rounds):
            for contender in found:
                note = contender.figures.setdefault
                note("one caller, p50 µs", []).append(one_caller(contender, case.row, seconds))
                for callers in (8, 64):
                    note(f"{callers} threads, requests/s", []).append(
                        many_threads(contender, case.row, seconds, callers)
                    )
                if contender.acall is not None:
                    for callers in (64, 1000):
                        note(f"{callers} tasks, requests/s", []).append(
                            many_tasks(contender, case.row, seconds, callers)
                        )
                note("one array, rows/s", []).append(big_array(contender, case.big))
                if contender.race is not None:
                    note(RAW_PAIR, []).append(sum(n / s for n, s in contender.race(case.row, seconds)))
                    slowest = max(taken for _, taken in contender.race(case.big, 0))
                    note(RAW_PAIR_ARRAY, []).append(len(case.big) / slowest)
            copied.append(copy_time(case.row))
    finally:
        for contender in found:
            contender.close()
    return found


def show(case: Case, found: list[Contender]) -> None:
    raw = statistics.median(found[0].figures["one caller, p50 µs"])
    table = Table(title=f"{case.name}: {case.row.nbytes:,} bytes a row", box=box.SIMPLE_HEAD)
    headings = list(
        dict.fromkeys(heading for contender in found for heading in contender.figures if heading not in _HIDDEN)
    )
    table.add_column("")
    for heading in headings:
        table.add_column(heading.replace(", ", "\n"), justify="right")
    table.add_column("adds to raw\nµs", justify="right")
    for contender in found:
        cells = [f"{statistics.median(contender.figures[h]):,.0f}" if h in contender.figures else "" for h in headings]
        adds = statistics.median(contender.figures["one caller, p50 µs"]) - raw
        table.add_row(contender.name, *cells, f"{adds:,.1f}" if contender is not found[0] else "")
    console.print(table)


def ratios(case: Case, found: list[Contender]) -> list[tuple[str, float]]:
    """What the targets are about, each as a ratio within this run."""
    by_name = {contender.name: contender for contender in found}

    def median(name: str, figure: str) -> float:
        return statistics.median(by_name[name].figures[figure])

    raw = median("raw onnxruntime", "one caller, p50 µs")
    added = {name: median(name, "one caller, p50 µs") - raw for name in by_name if name != "raw onnxruntime"}
    best = max(median(name, "64 tasks, requests/s") for name in by_name if name.startswith("modelserve"))
    return [
        (
            f"{case.name}: ProcessPoolExecutor adds / modelserve adds",
            added["ProcessPoolExecutor, 2"] / added["modelserve, 2 workers"],
        ),
        (
            f"{case.name}: 64 tasks, modelserve / ProcessPoolExecutor",
            best / median("ProcessPoolExecutor, 2", "64 tasks, requests/s"),
        ),
        (
            f"{case.name}: one array, modelserve with 2 workers / two raw processes at once",
            median("modelserve, 2 workers", "one array, rows/s") / median("multiprocessing.Pool, 2", RAW_PAIR_ARRAY),
        ),
        (
            f"{case.name}: 64 tasks, modelserve with 2 workers / two raw processes at once",
            median("modelserve, 2 workers", "64 tasks, requests/s") / median("multiprocessing.Pool, 2", RAW_PAIR),
        ),
        (
            f"{case.name}: modelserve adds / (3 copies of a row + 40 µs)",
            added["modelserve, 2 workers"] / (3 * median("raw onnxruntime", COPY) + 40),
        ),
    ]


def lifecycle() -> list[tuple[str, str]]:
    """Start, replacement, memory of a further worker."""
    import signal

    from executor_models import MODELS

    import modelserve as ms
    from modelserve.wire import encode_request

    bundle, row, _ = MODELS["tiny"]()
    starts, replaced = [], []
    for _ in range(5):
        start = time.perf_counter()
        with ms.Model(bundle).serve(workers=1) as deployment:
            deployment.predict(row)
            starts.append(time.perf_counter() - start)
    pool = WorkerPool(bundle, workers=1)
    for _ in range(10):
        victim = pool.status().workers[0].pid
        os.kill(victim, signal.SIGKILL)
        start = time.perf_counter()
        pool.submit(encode_request({bundle.signature.inputs[0].name: row}), 1).result()
        replaced.append(time.perf_counter() - start)
        while pool.status().ready != 1:
            time.sleep(0.001)
    pool.close()
    return [
        ("serve() to first answer, tiny, median of 5", f"{statistics.median(starts) * 1e3:.0f} ms"),
        ("kill -9 of the only worker to the next answer, median of 10", f"{statistics.median(replaced) * 1e3:.1f} ms"),
        *memory("large transformer, forked", "large", PoolSettings()),
        *memory("large transformer, 2 threads, mapped", "large", PoolSettings(threads=2)),
        *memory("large transformer, spawned, mapped", "large", PoolSettings(start="spawn")),
        *memory("forest of 800 trees, forked", "forest", PoolSettings()),
    ]


def memory(label: str, model: str, settings: PoolSettings) -> list[tuple[str, str]]:
    """Proportional memory of each further worker (PSS), and its latency beside a plain session's."""
    from executor_models import MODELS

    from modelserve.session import Session
    from modelserve.wire import encode_request

    bundle, row, _ = MODELS[model]()
    name = bundle.signature.inputs[0].name
    pool = WorkerPool(bundle, workers=1, settings=settings)

    def ask_all() -> None:
        pending = [pool.submit(encode_request({name: row}), len(row)) for _ in range(8)]
        for one in pending:
            one.result()

    def total() -> float:
        for _ in range(4):
            ask_all()
        return sum(map(pss, descendants())) / 1e6  # the zygote's share counts, too

    sums = {1: total()}
    for workers in (2, 4):
        pool.scale(workers)
        sums[workers] = total()
    pool.scale(1)
    session = Session(bundle, threads=settings.threads)
    ours, plain = [], []
    for _ in range(15):
        start = time.perf_counter()
        pool.submit(encode_request({name: row}), len(row)).result()
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        session.run({name: row})
        plain.append(time.perf_counter() - start)
    pool.close()
    each = (sums[4] - sums[1]) / 3
    return [
        (f"{label}: model on disk", f"{bundle.size_bytes / 1e6:.0f} MB"),
        (f"{label}: each further worker (PSS, from 1 to 4)", f"{each:.1f} MB"),
        (
            f"{label}: speed of a plain session / of the worker",
            f"{statistics.median(plain) / statistics.median(ours):.2f}",
        ),
    ]


def descendants() -> list[int]:
    """All processes below this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def pss(pid: int) -> float:
    """Proportional memory of a process, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0.0


def chart(results: dict[str, list[Contender]], into: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(4.2 * len(results), 3.4), layout="constrained")
    for axis, (name, found) in zip(np.atleast_1d(axes), results.items(), strict=True):
        shown = [contender for contender in found if "64 tasks, requests/s" in contender.figures]
        values = [statistics.median(contender.figures["64 tasks, requests/s"]) for contender in shown]
        colours = ["#1f6f8b" if contender.name.startswith("modelserve") else "#b0b0b0" for contender in shown]
        bars = axis.barh([contender.name for contender in shown], values, color=colours)
        axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=8)
        axis.set_title(name, fontsize=10)
        axis.set_xlim(0, max(values) * 1.25)
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Requests per second, 64 asyncio callers, one row each", fontsize=11)
    figure.savefig(into, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tiny,mlp,transformer,image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--chart", type=Path, help="write the chart as PNG")
    arguments = parser.parse_args()
    logging.getLogger("modelserve").setLevel(logging.ERROR)  # the workers killed below are meant to be
    results: dict[str, list[Contender]] = {}
    found_ratios: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODELSERVE_HOME"] = folder
        for case in cases(arguments.models.split(","), Path(folder)):
            results[case.name] = measure(case, arguments.rounds, arguments.seconds)
            show(case, results[case.name])
            found_ratios += ratios(case, results[case.name])
        table = Table(title="Ratios within this run", box=box.SIMPLE_HEAD, show_header=False)
        for name, value in found_ratios:
            table.add_row(name, f"{value:.2f}")
        for name, text in lifecycle():
            table.add_row(name, text)
        console.print(table)
    if arguments.chart:
        chart(results, arguments.chart)


# ProcessPoolExecutor, multiprocessing.Pool and loky import this file anew in their workers.
if __name__ == "__main__":
    main()
