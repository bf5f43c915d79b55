"""The server beside FastAPI with onnxruntime tuned by hand, in one interleaved run; prints one Markdown table.

Needs wrk and the extra `bench`. Says how much of the machine others took meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wrk
from executor_models import MODELS

_HERE = Path(__file__).parent / "http_candidates"
_CONNECTIONS = (1, 16, 64)
_PATH = "/v2/models/model/infer"


class Cell(NamedTuple):
    """One measurement, and the share of all processors that neither it nor wrk used."""

    load: wrk.Load
    elsewhere: float


def _commands(port: int, bundle: Path) -> dict[str, list[str]]:
    python = sys.executable
    ours = [python, "-m", "modelserve.runtime", "--model", str(bundle), "--port", str(port), "--log-level", "error"]
    theirs = [
        *(python, "-m", "uvicorn", "fastapi_tuned:app", "--host", "127.0.0.1", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ]
    return {
        "modelserve, 1 worker": [*ours, "--workers", "1"],
        "modelserve, 2 workers": [*ours, "--workers", "2"],
        "FastAPI tuned, 1 process": theirs,
        "FastAPI tuned, 2 processes": [*theirs, "--workers", "2"],
    }


def _bodies(row: np.ndarray, name: str, kinds: list[str]) -> dict[str, tuple[bytes, dict[str, str]]]:
    tensor = {"name": name, "shape": list(row.shape), "datatype": "FP32"}
    as_json = {"inputs": [{**tensor, "data": [round(float(value), 4) for value in row.ravel()]}]}
    binary = {**tensor, "parameters": {"binary_data_size": row.nbytes}}
    head = json.dumps({"inputs": [binary], "parameters": {"binary_data_output": True}}).encode()
    found = {
        "JSON": (json.dumps(as_json).encode(), {"Content-Type": "application/json"}),
        "binary": (
            head + row.tobytes(),
            {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))},
        ),
    }
    return {kind: found[kind] for kind in kinds}


def main() -> None:
    """Run every server in turn, `--rounds` times over, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--model", choices=["tiny", "mlp", "image"], default="tiny")
    chosen = parser.parse_args()
    bundle, row, _ = MODELS[chosen.model]()
    bodies = _bodies(
        row, bundle.signature.inputs[0].name, ["binary"] if chosen.model == "image" else ["JSON", "binary"]
    )
    found: dict[str, dict[tuple[str, int], list[Cell]]] = {}
    for _ in range(chosen.rounds):
        for name in _commands(0, bundle.path):
            for at, cell in _measured(name, bundle.path, bodies, chosen.seconds).items():
                found.setdefault(name, {}).setdefault(at, []).append(cell)
    _print(found, list(bodies))


def _measured(
    name: str, bundle: Path, bodies: dict[str, tuple[bytes, dict[str, str]]], seconds: int
) -> dict[tuple[str, int], Cell]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        _commands(port, bundle)[name],
        cwd=_HERE,
        env={**os.environ, "BUNDLE": str(bundle)},
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(port)
        found = {}
        for kind, (body, headers) in bodies.items():
            for connections in _CONNECTIONS:
                before = _processors(), _family_s(server.pid), _children_s()
                url = f"http://127.0.0.1:{port}{_PATH}"
                load = wrk.load(url, body, headers, connections=connections, seconds=seconds)
                (total_s, idle_s), own_s, wrk_s = _processors(), _family_s(server.pid), _children_s()
                passed_s = total_s - before[0][0]
                used_s = own_s - before[1] + wrk_s - before[2]
                others_s = passed_s - (idle_s - before[0][1]) - used_s
                found[kind, connections] = Cell(load, max(0.0, others_s / passed_s))
        return found
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def _wait(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10).close()
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _processors() -> tuple[float, float]:
    """Seconds of all processors so far, and those of them at rest."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    tick = os.sysconf("SC_CLK_TCK")
    return sum(fields[:8]) / tick, (fields[3] + fields[4]) / tick


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family_s(pid: int) -> float:
    """Processor seconds of a process and everything below it."""
    tick = os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
        used[int(folder.name)] = (int(fields[11]) + int(fields[12])) / tick
    total, family = 0.0, {pid}
    for child in sorted(parents):
        if child == pid or parents[child] in family:
            family.add(child)
            total += used[child]
    return total


def _print(found: dict[str, dict[tuple[str, int], list[Cell]]], kinds: list[str]) -> None:
    cells = [(kind, connections) for kind in kinds for connections in _CONNECTIONS]
    print("| requests/s (p50 / p99 µs) | " + " | ".join(f"{kind}, {connections}" for kind, connections in cells) + " |")
    print("|---" * (len(cells) + 1) + "|")
    for name, by_cell in found.items():
        texts = []
        for at in cells:
            loads = [cell.load for cell in by_cell[at]]
            rate = statistics.median(load.requests_per_s for load in loads)
            p50 = statistics.median(load.p50_us for load in loads)
            p99 = statistics.median(load.p99_us for load in loads)
            failed = sum(load.failed for load in loads)
            texts.append(f"{rate:,.0f} ({p50:,.0f} / {p99:,.0f})" + (f" {failed} failed" if failed else ""))
        print(f"| {name} | " + " | ".join(texts) + " |")
    elsewhere = [cell.elsewhere for by_cell in found.values() for one in by_cell.values() for cell in one]
    print(f"\nOthers took {statistics.median(elsewhere):.0%} of the machine (at most {max(elsewhere):.0%}).")


if __name__ == "__main__":
    main()
