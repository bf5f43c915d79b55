"""The local executor beside the raw runtime and Python's own pools, in one interleaved run. `make bench-executor`.

Every contender answers the same single-row requests with the same onnxruntime session settings (one thread each).
Rounds are interleaved, so that a busy moment of the machine falls on all; a figure is the median of the rounds.
What matters are the ratios between columns of one table.
"""

from __future__ import annotations

import argparse
import asyncio
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

import executor_results
import numpy as np
from executor_life import lifecycle
from executor_results import COPY, EXECUTOR, ONE, POOL, RAW, RAW_PAIR, RAW_PAIR_ARRAY, TWO, Medians
from rich import box
from rich.console import Console
from rich.table import Table

console = Console(width=110)
_ARRAYS = 5


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


def cases(names: list[str]) -> list[Case]:
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
    found = [Contender(RAW, lambda rows: session.run(None, {case.input: rows}))]
    for workers, name in ((1, ONE), (2, TWO)):
        deployment = ms.Model(bundle).serve(workers=workers, name=f"{case.name}-{workers}")
        found.append(
            Contender(
                name,
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
            EXECUTOR,
            lambda rows: executor.submit(run, case.input, rows).result(),
            in_executor,
            executor.shutdown,
        )
    )
    pool = spawn.Pool(2, start_worker, (model,))
    found.append(
        Contender(
            POOL,
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


def big_array(call: Callable[[np.ndarray], Any], rows: np.ndarray) -> float:
    """Rows per second of one large array, median of five: the first finds memory that was never touched."""
    taken = []
    for _ in range(_ARRAYS):
        start = time.perf_counter()
        call(rows)
        taken.append(time.perf_counter() - start)
    return len(rows) / statistics.median(taken)


def raced_array(race: Callable[[np.ndarray, float], list[tuple[int, float]]], rows: np.ndarray) -> float:
    """The same by two raw processes at once, half of it each; the slower one counts."""
    return len(rows) / statistics.median(max(taken for _, taken in race(rows, 0)) for _ in range(_ARRAYS))


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
                note("one array, rows/s", []).append(big_array(contender.call, case.big))
                if contender.race is not None:
                    note(RAW_PAIR, []).append(sum(n / s for n, s in contender.race(case.row, seconds)))
                    note(RAW_PAIR_ARRAY, []).append(raced_array(contender.race, case.big))
            copied.append(copy_time(case.row))
    finally:
        for contender in found:
            contender.close()
    return found


def medians(found: list[Contender]) -> Medians:
    """Of the rounds."""
    return {one.name: {name: statistics.median(values) for name, values in one.figures.items()} for one in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tiny,mlp,transformer,image", help="empty for none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument(
        "--life", action=argparse.BooleanOptionalAction, default=True, help="start, replacement, memory"
    )
    parser.add_argument("--record", type=Path, metavar="STEM", help="write STEM.json, STEM.md and STEM.png")
    arguments = parser.parse_args()
    logging.getLogger("modelserve").setLevel(logging.ERROR)  # the workers killed below are meant to be
    found: dict[str, dict[str, Any]] = {"models": {}, "life": {}}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODELSERVE_HOME"] = folder
        for case in cases([name for name in arguments.models.split(",") if name]):
            result = medians(measure(case, arguments.rounds, arguments.seconds))
            found["models"][case.name] = result
            executor_results.show(console, f"{case.name}: {case.row.nbytes:,} bytes a row", result)
        table = Table(title="Ratios within this run", box=box.SIMPLE_HEAD, show_header=False)
        for name, result in found["models"].items():
            for label, (value, target) in executor_results.ratios(result).items():
                table.add_row(f"{name}: {label}", f"{value:.2f}", target)
        for label, text in lifecycle() if arguments.life else ():
            found["life"][label] = text
            table.add_row(label, text)
        console.print(table)
    if arguments.record:
        executor_results.record(arguments.record, found)


# ProcessPoolExecutor, multiprocessing.Pool and loky import this file anew in their workers.
if __name__ == "__main__":
    main()
