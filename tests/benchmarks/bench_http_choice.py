"""Which HTTP server carries the pool best: the figures of docs/decisions/0050-http-server.md.

Needs wrk, and `pip install uvicorn granian aiohttp` beside the project; prints one Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import wrk

from modelserve.testing import models

_HERE = Path(__file__).parent / "http_candidates"
_FEATURES = 64
_CONNECTIONS = (1, 16, 64)


def _commands(port: int) -> dict[str, list[str]]:
    python = sys.executable
    granian = ["-m", "granian", "--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--no-access-log"]
    asgi = [*granian, "--log-level", "warning", "--interface"]
    return {
        "asyncio protocol, httptools, uvloop": [python, "bare_protocol.py", str(port)],
        "uvicorn, raw ASGI": [
            *(python, "-m", "uvicorn", "raw_asgi:app", "--host", "127.0.0.1", "--port", str(port)),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
        ],
        "granian, RSGI": [python, *asgi, "rsgi", "granian_rsgi:app"],
        "granian, ASGI": [python, *asgi, "asgi", "raw_asgi:app"],
        "aiohttp, uvloop": [python, "aiohttp_app.py", str(port)],
    }


def main() -> None:
    """Run every candidate in turn, `--rounds` times over, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    chosen = parser.parse_args()
    bundle = models.linear(_FEATURES, 10)
    row = np.random.default_rng(0).normal(size=(1, _FEATURES)).astype(np.float32)
    bodies = {
        "JSON": (json.dumps({"data": row.tolist()}).encode(), {"Content-Type": "application/json"}),
        "binary": (row.tobytes(), {"Content-Type": "application/octet-stream"}),
    }
    found: dict[str, dict[tuple[str, int], list[wrk.Load]]] = {}
    for _ in range(chosen.rounds):
        for name in _commands(0):
            for cell, load in _measured(name, bundle.path, bodies, chosen.seconds).items():
                found.setdefault(name, {}).setdefault(cell, []).append(load)
    _print(found, list(bodies))


def _measured(name: str, bundle: Path, bodies: dict, seconds: int) -> dict[tuple[str, int], wrk.Load]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        _commands(port)[name], cwd=_HERE, env={**os.environ, "BUNDLE": str(bundle)}, stderr=subprocess.DEVNULL
    )
    try:
        _wait(port, bodies["binary"][0])
        return {
            (kind, connections): wrk.load(
                f"http://127.0.0.1:{port}/", body, headers, connections=connections, seconds=seconds
            )
            for kind, (body, headers) in bodies.items()
            for connections in _CONNECTIONS
        }
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _wait(port: int, body: bytes) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/", body, {"Content-Type": "application/octet-stream"}, method="POST"
    )
    end = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).read()
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _print(found: dict[str, dict[tuple[str, int], list[wrk.Load]]], kinds: list[str]) -> None:
    cells = [(kind, connections) for kind in kinds for connections in _CONNECTIONS]
    print("| requests/s (p50 µs) | " + " | ".join(f"{kind}, {connections}" for kind, connections in cells) + " |")
    print("|---" * (len(cells) + 1) + "|")
    for name, by_cell in found.items():
        texts = []
        for cell in cells:
            loads = by_cell[cell]
            rate = statistics.median(load.requests_per_s for load in loads)
            p50 = statistics.median(load.p50_us for load in loads)
            failed = sum(load.failed for load in loads)
            texts.append(f"{rate:,.0f} ({p50:,.0f})" + (f" {failed} failed" if failed else ""))
        print(f"| {name} | " + " | ".join(texts) + " |")


if __name__ == "__main__":
    main()
