"""The servers of `bench_server.py`: ours, FastAPI tuned by hand, and packaged peers each in a venv of its own.

A peer is set up as its makers advise for speed, with two workers where it has workers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_HERE = Path(__file__).parent
WORKERS = 2
#: The peers that come as a package, without a bound by hand among them.
PACKAGED = ("LitServe", "BentoML", "MLServer", "MLServer, workers", "Ray Serve, HAProxy")
Body = tuple[bytes, dict[str, str]]


@dataclass(frozen=True)
class Place:
    """Where one server is to run."""

    port: int
    model: Path
    bundle: Path
    row: np.ndarray
    input_name: str
    scratch: Path
    venvs: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PEER_PORT": str(self.port),
            "PEER_WORKERS": str(WORKERS),
            "PEER_DTYPE": self.row.dtype.name,
            "PEER_SHAPE": ",".join(map(str, self.row.shape[1:])),
            "PEER_MODEL": str(self.model),
            "BUNDLE": str(self.bundle),
            "OMP_NUM_THREADS": "1",
            "HOME": str(self.scratch),
        }


@dataclass(frozen=True)
class Candidate:
    """One server.

    Attributes:
        packages: What its venv holds; none for those that run from the project's own.
        command: What starts it, and variables beside `Place.environment`.
        path: Where it is asked.
        body: Its body of a kind ("JSON" or "binary"); None where it takes none.
    """

    command: Callable[[Place], tuple[list[str], dict[str, str]]]
    path: str
    body: Callable[[Place, str], Body | None]
    packages: tuple[str, ...] = ()
    venv: str = ""


def python(place: Place, candidate: Candidate) -> str:
    """The interpreter of a candidate's venv, which is made where it is not there yet."""
    if not candidate.venv:
        return sys.executable
    folder = place.venvs / candidate.venv
    if not (folder / "bin" / "python").exists():
        print(f"Making {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "onnxruntime", "numpy", *candidate.packages], check=True)
    return str(folder / "bin" / "python")


def _oip(place: Place, kind: str) -> Body:
    tensor = {
        "name": place.input_name,
        "shape": list(place.row.shape),
        "datatype": {"float32": "FP32", "int64": "INT64"}[place.row.dtype.name],
    }
    if kind == "JSON":
        content = {"inputs": [{**tensor, "data": _numbers(place.row.ravel())}]}
        return json.dumps(content).encode(), {"Content-Type": "application/json"}
    binary = {**tensor, "parameters": {"binary_data_size": place.row.nbytes}}
    head = json.dumps({"inputs": [binary], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + place.row.tobytes(), headers


def _oip_json(place: Place, kind: str) -> Body | None:
    return _oip(place, kind) if kind == "JSON" else None


def _x(place: Place, kind: str, *, batched: bool = False) -> Body | None:
    if kind == "JSON":
        row = place.row if batched else place.row[0]
        return json.dumps({"x": _numbers(row)}).encode(), {"Content-Type": "application/json"}
    return place.row.tobytes(), {"Content-Type": "application/octet-stream"}


def _x_json(place: Place, kind: str) -> Body | None:
    return _x(place, kind) if kind == "JSON" else None


def _x_batched(place: Place, kind: str) -> Body | None:
    return _x(place, kind, batched=True) if kind == "JSON" else None


def _numbers(array: np.ndarray) -> Any:
    return np.round(array.astype(float), 4).tolist() if array.dtype.kind == "f" else array.tolist()


def _ours(workers: int) -> Callable[[Place], tuple[list[str], dict[str, str]]]:
    def command(place: Place) -> tuple[list[str], dict[str, str]]:
        own = ["-m", "modelserve.runtime", "--model", str(place.bundle), "--port", str(place.port)]
        return [sys.executable, *own, "--log-level", "error", "--workers", str(workers)], {}

    return command


def _fastapi(place: Place) -> tuple[list[str], dict[str, str]]:
    served = ["-m", "uvicorn", "--app-dir", str(_HERE / "http_candidates"), "fastapi_tuned:app"]
    how = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    where = ["--host", "127.0.0.1", "--port", str(place.port), "--workers", str(WORKERS)]
    return [sys.executable, *served, *how, *where], {}


def _script(name: str, **variables: str) -> Callable[[Place], tuple[list[str], dict[str, str]]]:
    def command(place: Place) -> tuple[list[str], dict[str, str]]:
        return [python(place, CANDIDATES[name]), f"{CANDIDATES[name].venv}_app.py"], variables

    return command


def _bentoml(place: Place) -> tuple[list[str], dict[str, str]]:
    bin_folder = Path(python(place, CANDIDATES["BentoML"])).parent
    where = ["--host", "127.0.0.1", "--port", str(place.port)]
    variables = {"BENTOML_DO_NOT_TRACK": "True", "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    return [str(bin_folder / "bentoml"), "serve", "bentoml_app:Model", *where], variables


def _mlserver(workers: int) -> Callable[[Place], tuple[list[str], dict[str, str]]]:
    def command(place: Place) -> tuple[list[str], dict[str, str]]:
        folder = place.scratch / "mlserver"
        folder.mkdir(exist_ok=True)
        ports = {"http_port": place.port, "grpc_port": place.port + 1, "metrics_port": place.port + 2}
        settings = {"host": "127.0.0.1", "parallel_workers": workers, "debug": False, "metrics_endpoint": None, **ports}
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(
            json.dumps({"name": "model", "implementation": "mlserver_app.Model"})
        )
        program = Path(python(place, CANDIDATES["MLServer"])).with_name("mlserver")
        return [str(program), "start", str(folder)], {"PYTHONPATH": str(_HERE / "server_peers")}

    return command


_OIP_PATH = "/v2/models/model/infer"
_RAY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
CANDIDATES = {
    "modelserve": Candidate(_ours(WORKERS), _OIP_PATH, _oip),
    "modelserve, 1 worker": Candidate(_ours(1), _OIP_PATH, _oip),
    "FastAPI tuned": Candidate(_fastapi, _OIP_PATH, _oip),
    "LitServe": Candidate(_script("LitServe"), "/predict", _x_json, ("litserve",), "litserve"),
    "BentoML": Candidate(_bentoml, "/predict", _x_batched, ("bentoml",), "bentoml"),
    "MLServer": Candidate(_mlserver(0), _OIP_PATH, _oip_json, ("mlserver", "uvloop<0.22"), "mlserver"),
    "MLServer, workers": Candidate(_mlserver(WORKERS), _OIP_PATH, _oip_json, ("mlserver", "uvloop<0.22"), "mlserver"),
    "Ray Serve, HAProxy": Candidate(_script("Ray Serve, HAProxy", **_RAY), "/predict", _x, ("ray[serve]",), "ray"),
}
