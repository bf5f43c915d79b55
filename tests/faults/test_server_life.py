"""From the first connection to the last answer: starting, killed workers, reloading, ending."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from modelserve.bundle import Bundle
from modelserve.testing import models
from modelserve.testing.load import Load
from modelserve.testing.serving import ServerProcess, ServerThread, bundle_folder

ROW = b'{"instances":[[1,2,3,4]]}'


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def post(url: str, body: bytes = ROW) -> Any:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"{}")


def test_it_listens_before_it_loads_and_is_ready_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.linear().path
    opened, go_on = threading.Event(), threading.Event()
    really = Bundle.open

    def slowly(*arguments: Any, **options: Any) -> Bundle:
        opened.set()
        assert go_on.wait(30)
        return really(*arguments, **options)

    monkeypatch.setattr(Bundle, "open", slowly)
    with ServerThread(model=path, wait=False) as running:
        assert opened.wait(30)
        assert get(f"{running.url}/livez") == 200
        assert [get(f"{running.url}{path}") for path in ("/readyz", "/healthz", "/ping", "/v2/health/ready")] == [
            503
        ] * 4
        assert get(f"{running.url}/v2/models/model") == 503
        go_on.set()
        assert running.call(running.server.loaded()) == []
        assert get(f"{running.url}/readyz") == 200


def test_a_model_that_does_not_load_makes_it_unready_and_hurts_no_other(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path / "models", good=models.linear(), bad=models.linear(seed=5))
    (folder / "bad" / "model.onnx").write_bytes(b"junk")
    with ServerThread(models=folder, wait=False) as running:
        (failure,) = running.call(running.server.loaded())
        assert "bad" in str(failure)
        assert get(f"{running.url}/readyz") == 503
        assert post(f"{running.url}/v1/models/good:predict")["predictions"]
        assert get(f"{running.url}/v2/models/bad/ready") == 503
        index = post(f"{running.url}/v2/repository/index", b"")
    assert {one["name"]: one["state"] for one in index} == {"good": "READY", "bad": "UNAVAILABLE"}


@pytest.mark.parametrize("started", ["thread", "process"])
def test_a_killed_worker_costs_no_request(started: str) -> None:
    path = models.linear().path
    if started == "thread":
        with ServerThread(model=path, workers=2) as running:
            pids = [worker.pid for worker in running.server.repository.find("model").pool.status().workers]
            _kill_under_load(running.url, [pid for pid in pids if pid])
        return
    with ServerProcess("--model", str(path), "--workers", "2") as process:
        with urllib.request.urlopen(f"{process.url}/v2/models/model/status", timeout=20) as answer:
            workers = json.loads(answer.read())["workers"]
        _kill_under_load(process.url, [worker["pid"] for worker in workers])


def _kill_under_load(url: str, workers: list[int]) -> None:
    expected = post(f"{url}/invocations")
    with Load(lambda: _same(url, expected), threads=4) as load:
        load.wait_for(20)
        os.kill(workers[0], signal.SIGKILL)
        load.wait_for(100)
    assert load.failures == []


def _same(url: str, expected: dict[str, Any]) -> None:
    assert post(f"{url}/invocations") == expected


def test_told_to_end_it_answers_what_is_under_way_and_takes_nothing_new() -> None:
    bundle = models.slow(2000)
    body = json.dumps({"instances": [[1.0] * 128] * 64}).encode()
    with ServerProcess("--model", str(bundle.path), "--workers", "1") as process:
        url = process.url
        idle = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=20)
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(post(f"{url}/invocations", body)))
        asking.start()
        while not _inflight(url):
            pass
        process.signal(signal.SIGTERM)
        asking.join(30)
        assert idle.recv(1) == b""  # who asks nothing is let go at once
        idle.close()
        assert process.ended(timeout_s=30) == 0
    assert len(answers[0]["predictions"]) == 64
    with pytest.raises(urllib.error.URLError):
        post(f"{url}/invocations")


def _inflight(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/v2/models/model/status", timeout=20) as answer:
        return bool(json.loads(answer.read())["inflight"])


@pytest.mark.long
def test_it_leaves_no_process_behind() -> None:
    with ServerProcess("--model", str(models.linear().path), "--workers", "2") as process:
        group = [process.pid, *_family(process.pid)]
        assert len(group) >= 3
    assert [pid for pid in group if Path(f"/proc/{pid}").exists()] == []


def _family(pid: int) -> list[int]:
    found = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    return found + [inner for child in found for inner in _family(child)]


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


@pytest.mark.long
def test_killed_outright_it_takes_its_workers_with_it() -> None:
    with ServerProcess("--model", str(models.linear().path), "--workers", "2") as process:
        group = _family(process.pid)
        process.signal(signal.SIGKILL)
        process.ended()
    for pid in group:
        _wait_until_gone(pid)


def _wait_until_gone(pid: int) -> None:
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], 20)[0], f"Process {pid} outlives its server."
    os.close(descriptor)


@pytest.mark.long
def test_hung_up_on_it_takes_what_lies_on_disk_now(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path / "models", one=models.linear(seed=1), gone=models.linear())
    with ServerProcess("--models", str(folder), "--workers", "1") as process:
        before = post(f"{process.url}/v1/models/one:predict")
        with Load(lambda: post(f"{process.url}/v1/models/one:predict") and None, threads=2) as load:
            load.wait_for(10)
            shutil.rmtree(folder / "one")
            shutil.rmtree(folder / "gone")
            bundle_folder(folder, one=models.linear(seed=2), more=models.mlp())
            process.signal(signal.SIGHUP)
            process.wait_for("Reloaded")
            load.wait_for(10)
        assert load.failures == []
        assert post(f"{process.url}/v1/models/one:predict") != before
        assert get(f"{process.url}/v2/models/more") == 200
        assert get(f"{process.url}/v2/models/gone") == 404


def test_without_any_model_it_ends_and_says_why(tmp_path: Path) -> None:
    with ServerProcess("--model", str(tmp_path / "nothing"), wait=False) as process:
        assert process.ended() == 1
        assert "is not a bundle" in process.wait_for("Not loaded")["message"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "no model to serve"),
        (("--port", "70000"), {}, "--port"),
        (("--model", "x"), {"MODELSERVE_SERVER_WORKERS": "many"}, "MODELSERVE_SERVER_WORKERS"),
        (("--model", "x"), {"MODELSERVE_SERVER_COLOUR": "red"}, "MODELSERVE_SERVER_COLOUR"),
        (("--model", "x", "--host", "0.0.0.0"), {}, "modelserve keys create"),
        (("--model", "x"), {"MODELSERVE_CONTRACT": "mars"}, "MODELSERVE_CONTRACT"),
        (("--model", "x", "--tls-key", "k"), {}, "--tls-certificate"),
    ],
)
def test_settings_that_make_no_sense_end_it_with_2(
    arguments: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    with ServerProcess(*arguments, environment=environment, wait=False) as process:
        assert process.ended() == 2
    assert any(message in line["message"] for line in process.lines), process.lines


@pytest.mark.long
def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with ServerProcess("--model", str(models.linear().path), "--port", port, wait=False) as process:
            assert process.ended() == 2
    assert any("Choose another port" in line["message"] for line in process.lines)
