"""The server beside FastAPI tuned by hand, LitServe, BentoML, MLServer and Ray Serve, on the same ONNX files.

Every server in turn, `--rounds` times over: seconds to the first answer, requests/s and latencies at 1, 16 and 64
connections, memory of all its processes; with `--kill`, what callers see when a worker is killed. In steps: what is
chosen by `--peer` and `--model` is measured and added to the file of `--record`, from which `--table` and `--page`
are made. Needs wrk and the extra `bench`; each peer gets a venv of its own below `--venvs`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import server_report
import wrk
from executor_models import MODELS, race, start_worker
from server_candidates import CANDIDATES, Candidate, Place
from server_kill import kill_under_load
from server_process import ServerProcess

_HERE = Path(__file__).parent
CONNECTIONS = (1, 16, 64)
KINDS = {"tiny": ("JSON", "binary"), "mlp": ("JSON", "binary"), "transformer": ("JSON",), "image": ("binary",)}


def main() -> None:
    """Measure what was chosen, and write what was asked for."""
    chosen = _arguments()
    record = json.loads(chosen.record.read_text()) if chosen.record.exists() else []
    for number in range(chosen.rounds):
        for model in chosen.model if chosen.rounds else ():
            for name in chosen.peer:
                try:
                    found = _raw(model, chosen.seconds) if name == server_report.RAW else _measured(name, model, chosen)
                except (RuntimeError, OSError) as error:
                    found = {"failed": str(error)}
                if found:
                    record.append({"server": name, "model": model, **found})
                    chosen.record.write_text(json.dumps(record, indent=1) + "\n")
                    print(number, model, name, json.dumps(found), file=sys.stderr, flush=True)
    if chosen.table:
        print(server_report.table(record))
    if chosen.page:
        server_report.page(record, chosen.page.with_suffix(".md"), f"{chosen.page.name}.png")
        server_report.chart(record, chosen.page.with_suffix(".png"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peer", nargs="*", default=[*CANDIDATES, server_report.RAW], choices=[*CANDIDATES, server_report.RAW]
    )
    parser.add_argument("--model", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--venvs", type=Path, default=_HERE / ".venvs")
    parser.add_argument("--record", type=Path, default=_HERE / "server_results.json")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--page", type=Path, metavar="STEM", help="write STEM.md and STEM.png")
    return parser.parse_args()


def _measured(name: str, model: str, chosen: argparse.Namespace) -> dict[str, Any]:
    candidate = CANDIDATES[name]
    bundle, row, _ = MODELS[model]()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        place = Place(
            _free_port(),
            Path(bundle.model_path),
            bundle.path,
            row,
            bundle.signature.inputs[0].name,
            Path(scratch),
            chosen.venvs.absolute(),
        )
        kinds = [kind for kind in KINDS[model] if candidate.body(place, kind) is not None]
        if not kinds:
            return {}
        command, variables = candidate.command(place)
        environment = {**place.environment, **variables}
        log = Path(tempfile.gettempdir()) / f"bench-{candidate.venv or 'own'}.log"
        with ServerProcess(command, environment, _HERE / "server_peers", log, place.port) as server:
            return _asked(server, candidate, place, kinds, chosen)


def _asked(
    server: ServerProcess, candidate: Candidate, place: Place, kinds: list[str], chosen: argparse.Namespace
) -> dict[str, Any]:
    url = f"http://127.0.0.1:{place.port}{candidate.path}"
    bodies = {kind: candidate.body(place, kind) or (b"", {}) for kind in kinds}
    server.wait(candidate.path, *bodies[kinds[0]])
    loads: dict[str, Any] = {}
    for kind, (body, headers) in bodies.items():
        wrk.load(url, body, headers, connections=16, seconds=1)  # warm
        for connections in CONNECTIONS:
            before = _busy()
            load = wrk.load(url, body, headers, connections=connections, seconds=chosen.seconds)
            loads[f"{kind} {connections}"] = {**load._asdict(), "busy": round(_busy(before), 2)}
    found = {"start_s": round(server.start_s, 2), "memory_mib": round(server.memory_mib()), "loads": loads}
    if chosen.kill:
        found["kill"] = kill_under_load(server, place.port, candidate.path, *bodies[kinds[0]])
    return found


def _raw(model: str, seconds: int) -> dict[str, Any]:
    """The limit: the same rows by onnxruntime in one process and in two, with nothing around them."""
    bundle, row, _ = MODELS[model]()
    name = bundle.signature.inputs[0].name
    rates = {}
    for processes, key in ((1, "1"), (2, "64")):
        with ProcessPoolExecutor(processes, initializer=start_worker, initargs=(str(bundle.model_path),)) as pool:
            list(pool.map(race, [name] * 2, [row] * 2, [0.0] * 2, [0.3] * 2))
            start = time.time() + 0.1
            found = list(
                pool.map(race, [name] * processes, [row] * processes, [start] * processes, [seconds] * processes)
            )
        rates[key] = sum(count / took for count, took in found)
    loads = {
        f"{kind} {key}": {"requests_per_s": rate, "p50_us": round(1e6 / rates["1"]), "p99_us": 0, "failed": 0}
        for kind in KINDS[model]
        for key, rate in rates.items()
    }
    return {"loads": loads}


def _busy(before: tuple[float, float] | None = None) -> Any:
    """The share of all processors that was at work since `before`; without it, where to begin."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    tick = os.sysconf("SC_CLK_TCK")
    now = sum(fields[:8]) / tick, (fields[3] + fields[4]) / tick
    if before is None:
        return now
    return 1 - (now[1] - before[1]) / max(1e-9, now[0] - before[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    main()
