"""How fast a pool starts and replaces a worker, and what a further worker costs in memory."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from executor_models import MODELS

import modelserve as ms
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.session import Session
from modelserve.wire import encode_request

_WAKES = 2000


def lifecycle() -> Iterator[tuple[str, str]]:
    """What was measured, and how much."""
    yield "waking a process on another processor and being woken by it, median", f"{_wake_us():.0f} µs"
    yield "serve() to first answer, tiny, median of 5 (target 500 ms)", f"{_start_s() * 1e3:.0f} ms"
    yield (
        "kill -9 of the only worker to the next answer, median of 10 (target 50 ms)",
        f"{_replacement_s() * 1e3:.1f} ms",
    )
    yield from _memory("large transformer, forked (target 20 MB)", "large", PoolSettings())
    yield from _memory("large transformer, 2 threads, mapped (target 45 MB)", "large", PoolSettings(threads=2))
    yield from _memory("large transformer, spawned, mapped (target 45 MB)", "large", PoolSettings(start="spawn"))
    yield from _memory("forest of 800 trees, forked (target 10 MB)", "forest", PoolSettings())


def _wake_us() -> float:
    """Two processes that wake each other by eventfd: what no transport whose ends sleep can be quicker than.

    Each has a processor to itself, as a caller and a worker have; the scheduler would put both on one.
    """
    there, back = os.eventfd(0), os.eventfd(0)
    ours = os.sched_getaffinity(0)
    child = os.fork()
    os.sched_setaffinity(0, {min(ours) if child else max(ours)})
    if not child:
        for _ in range(_WAKES):
            os.eventfd_read(there)
            os.eventfd_write(back, 1)
        os._exit(0)
    took = []
    for _ in range(_WAKES):
        start = time.perf_counter()
        os.eventfd_write(there, 1)
        os.eventfd_read(back)
        took.append(time.perf_counter() - start)
    os.waitpid(child, 0)
    os.sched_setaffinity(0, ours)
    for descriptor in (there, back):
        os.close(descriptor)
    return statistics.median(took) * 1e6


def _start_s() -> float:
    bundle, row, _ = MODELS["tiny"]()
    starts = []
    for _ in range(5):
        start = time.perf_counter()
        with ms.Model(bundle).serve(workers=1) as deployment:
            deployment.predict(row)
            starts.append(time.perf_counter() - start)
    return statistics.median(starts)


def _replacement_s() -> float:
    bundle, row, _ = MODELS["tiny"]()
    message = encode_request({bundle.signature.inputs[0].name: row})
    pool = WorkerPool(bundle, workers=1)
    replaced = []
    for _ in range(10):
        victim = pool.status().workers[0].pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        start = time.perf_counter()
        pool.submit(message, 1).result()
        replaced.append(time.perf_counter() - start)
        while pool.status().ready != 1:
            time.sleep(0.001)
    pool.close()
    return statistics.median(replaced)


def _memory(label: str, model: str, settings: PoolSettings) -> Iterator[tuple[str, str]]:
    """Proportional memory of each further worker (PSS), and its latency beside a plain session's."""
    bundle, row, _ = MODELS[model]()
    message = encode_request({bundle.signature.inputs[0].name: row})
    pool = WorkerPool(bundle, workers=1, settings=settings)

    def total() -> float:
        for _ in range(4):
            for pending in [pool.submit(message, len(row)) for _ in range(8)]:
                pending.result()
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
        pool.submit(message, len(row)).result()
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        session.run({bundle.signature.inputs[0].name: row})
        plain.append(time.perf_counter() - start)
    pool.close()
    yield f"{label}: model on disk", f"{bundle.size_bytes / 1e6:.0f} MB"
    yield f"{label}: each further worker (PSS, from 1 to 4)", f"{(sums[4] - sums[1]) / 3:.1f} MB"
    yield (
        f"{label}: speed of the worker / of a plain session (target 0.97)",
        f"{statistics.median(plain) / statistics.median(ours):.2f}",
    )


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
