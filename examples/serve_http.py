"""Serve a model over HTTP and gRPC as a process of its own, and ask it as four kinds of client would.

python examples/serve_http.py
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import modelserve


@contextlib.contextmanager
def served(bundle: Path) -> Iterator[tuple[str, str]]:
    """The addresses of a server for this bundle, by HTTP and by gRPC, which ends with the block."""
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        port, grpc_port = (probe.getsockname()[1] for probe in (first, second))
    command = [sys.executable, "-m", "modelserve", "serve", str(bundle), "--port", str(port), "--name", "iris"]
    process = subprocess.Popen([*command, "--set", f"grpc-port={grpc_port}"], stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while not ready(url):
            assert time.monotonic() < end, "The server is not ready after a minute."
            time.sleep(0.05)
        yield url, f"127.0.0.1:{grpc_port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def main() -> None:
    flowers, kinds = load_iris(return_X_y=True)
    classifier = LogisticRegression(max_iter=500).fit(flowers, kinds)
    bundle = modelserve.Model(classifier, example=flowers[:8]).bundle()
    rows = flowers[[0, 75, 149]]
    print("scikit-learn        ", classifier.predict(rows))
    with served(bundle.path) as (url, grpc_address):
        # Anybody, with JSON.
        body = json.dumps({"instances": rows.tolist()}).encode()
        request = urllib.request.Request(f"{url}/predict", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            print("JSON                ", json.loads(answer.read())["predictions"])
        # The clients of Triton and KServe, by gRPC.
        given = triton.InferInput("X", list(rows.shape), "FP64")
        given.set_data_from_numpy(rows)
        with triton.InferenceServerClient(grpc_address) as client:
            print("tritonclient, gRPC  ", client.infer("iris", [given]).as_numpy("label"))
        # modelserve itself: the same Deployment as on every other place.
        with modelserve.attach(f"{url}/v2/models/iris") as deployment:
            print("modelserve.attach   ", deployment.predict(rows))
            sure = deployment.predict(rows[:1], outputs=["probabilities"])["probabilities"]
            print("its probabilities   ", np.round(sure, 3))


if __name__ == "__main__":
    main()
