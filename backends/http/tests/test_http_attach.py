"""Attaching to a server: by its address alone, by a model's, with a key, and to what is no server of the kind."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelserve
from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    DeadlineError,
    DeploymentClosedError,
    DeploymentNotFoundError,
    ModelServeError,
    NotSupportedError,
    WireError,
)
from modelserve.runtime.server.access.keys import KeyFile
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.load import Load
from modelserve.testing.serving import ServerThread, bundle_folder
from modelserve_http import HttpBackend

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


def test_an_address_alone_is_the_only_model_there() -> None:
    path = models.linear().path
    with ServerThread(model=path, name="digits") as server, modelserve.attach(server.url) as deployment:
        assert deployment.name == "digits"
        np.testing.assert_array_equal(deployment.predict(X), Session(models.linear()).run({"x": X})["y"])


def test_of_several_models_one_has_to_be_named(tmp_path: Path) -> None:
    with ServerThread(models=bundle_folder(tmp_path, a=models.linear(), b=models.mlp())) as server:
        with pytest.raises(DeploymentNotFoundError, match="a, b"):
            modelserve.attach(server.url)
        with modelserve.attach(f"{server.url}/v2/models/b") as deployment:
            assert deployment.signature == models.mlp().signature
        with pytest.raises(DeploymentNotFoundError, match="'c'"):
            modelserve.attach(f"{server.url}/v2/models/c")


def test_a_key_opens_what_it_was_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    key = keys.create("app")
    Path("modelserve.toml").write_text('[targets.shop]\nbackend = "http"\nurl = "${SHOP_URL}"\nkey = "${SHOP_KEY}"\n')
    with ServerThread(model=models.linear().path, keys=keys.path) as server:
        monkeypatch.setenv("SHOP_URL", server.url)
        monkeypatch.setenv("SHOP_KEY", key)
        with modelserve.attach("model", "shop") as deployment:
            assert deployment.predict(X).shape == (2, 3)
            with pytest.raises(AccessDeniedError):
                deployment.scale(2)
        with pytest.raises(AccessDeniedError, match="key is needed"):
            modelserve.attach(f"{server.url}/v2/models/model")
    assert key not in repr(HttpBackend({"url": server.url, "key": key})._options)


def test_a_killed_worker_behind_the_server_costs_no_request() -> None:
    with ServerThread(model=models.linear().path, workers=2) as server:
        wanted = Session(models.linear()).run({"x": X})["y"]
        with modelserve.attach(server.url) as deployment:
            with Load(lambda: np.testing.assert_allclose(deployment.predict(X), wanted, rtol=1e-5)) as load:
                load.wait_for(20)
                pid = deployment.status().replicas[0].details["pid"]
                os.kill(pid, signal.SIGKILL)
                load.wait_for(100)
            assert load.failures == []


def test_closing_breaks_off_what_is_under_way() -> None:
    with ServerThread(model=models.slow(2000).path) as server:
        deployment = modelserve.attach(server.url)
        waiting = deployment._endpoint.submit(_request())
        deployment.close()
        with pytest.raises(DeploymentClosedError):
            waiting.result()


def _request() -> Any:
    from modelserve.backend import Request
    from modelserve.wire import encode_request

    rows = np.ones((512, 128), np.float32)
    return Request(encode_request({"x": rows}), len(rows), 30.0)


def test_a_server_that_is_not_there_is_said(unused_port: int) -> None:
    with pytest.raises(BackendError, match=str(unused_port)):
        modelserve.attach(f"http://127.0.0.1:{unused_port}/v2/models/m")


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "localhost:8000"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        HttpBackend({"url": url}).attach("m")


def test_without_the_folder_nothing_can_be_put_there() -> None:
    with ServerThread(model=models.linear().path) as server:
        backend = HttpBackend({"url": server.url})
        with pytest.raises(NotSupportedError, match="folder"):
            modelserve.Model.load(models.linear().path).serve("http", url=server.url)
        endpoint = backend.attach("model")
        for refused in (lambda: endpoint.update(models.linear(seed=1)), endpoint.delete):
            with pytest.raises(NotSupportedError, match="folder"):
                refused()
        endpoint.close()


class Foreign(http.server.BaseHTTPRequestHandler):
    """A server of another make, as far as the protocol asks, and one that answers nonsense besides."""

    protocol_version = "HTTP/1.1"
    answer: bytes = b""

    def do_GET(self) -> None:
        specs = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}
        specs["outputs"] = [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]
        known = {"/v2/models/m": {"name": "m", **specs}, "/v2/models/m/ready": {}}
        self._send(200 if self.path in known else 404, json.dumps(known.get(self.path, {"error": "no"})).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send(200 if self.path == "/v2/models/m/infer" else 404, self.answer)

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def foreign() -> Iterator[tuple[str, type[Foreign]]]:
    kind = type("One", (Foreign,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v2/models/m", kind
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_server_of_another_make_is_understood(foreign: tuple[str, type[Foreign]]) -> None:
    url, kind = foreign
    output = {"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}
    kind.answer = json.dumps({"model_name": "m", "outputs": [output]}).encode()
    with modelserve.attach(url) as deployment:
        assert deployment.predict(X).tolist() == [[1, 2, 3], [4, 5, 6]]
        assert deployment.status().state.value == "ready"
        with pytest.raises(NotSupportedError, match="of another make"):
            deployment.scale(2)


@pytest.mark.parametrize("answer", [b"", b"junk", b"{}", b'{"outputs":[]}', b'{"outputs":[{"name":"y"}]}'])
def test_nonsense_is_an_error_of_ours(foreign: tuple[str, type[Foreign]], answer: bytes) -> None:
    url, kind = foreign
    kind.answer = answer
    with modelserve.attach(url) as deployment, pytest.raises(WireError):
        deployment.predict(X)


def test_a_deadline_holds_around_the_whole_request() -> None:
    path, rows = models.slow(4000).path, np.ones((512, 128), np.float32)
    with ServerThread(model=path) as server, modelserve.attach(server.url) as deployment, pytest.raises(DeadlineError):
        deployment.predict(rows, timeout_s=0.1)


def test_a_bundle_that_does_not_load_leaves_the_old_one(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path / "models", m=models.linear())
    with ServerThread(models=folder) as server:
        backend = HttpBackend({"url": server.url, "folder": folder})
        endpoint = backend.attach("m")
        bad = models.linear(seed=9)
        (bad.path / "model.onnx").write_bytes(b"junk")
        with pytest.raises(ModelServeError):
            endpoint.update(bad)
        assert endpoint.status().digest == models.linear().digest
        assert [path.name for path in folder.iterdir()] == ["m"]
        endpoint.close()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
