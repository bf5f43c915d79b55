"""What loopback clouds share: the real runtime as a container, a fleet of them, faults, a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modelserve.standin.containers import Container, ContainerSpec
from modelserve.standin.faults import Delayed, Failing, Faults, Switches
from modelserve.standin.fleet import Fleet, NoCapacityError, NotHealthyError
from modelserve.standin.launch import can_mount
from modelserve.standin.load import Load
from modelserve.standin.loopback import Answered, Broken, Exchange, LoopbackServer, Pieces, answering
from modelserve.testing import models

ROW = b'{"instances":[[1,2,3,4]]}'


def spec(*, mounted: bool = False) -> ContainerSpec:
    folder = models.linear().path
    return ContainerSpec(
        {"MODELSERVE_SERVER_WORKERS": "1"},
        "SAGEMAKER_BIND_TO_PORT",
        "/ping",
        arguments=["serve"],
        folder=folder if mounted else folder.parent / "model",
        mount_at="/opt/ml/model" if mounted else "",
        folder_variable="SAGEMAKER_BASE_DIR",
        folder_value=folder.parent,
    )


@pytest.fixture
def alike(own_home: None) -> ContainerSpec:
    folder = models.linear().path
    (folder.parent / "model").symlink_to(folder)
    return spec()


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path / "own"))


@pytest.fixture
def fleet(alike: ContainerSpec) -> Iterator[Fleet]:
    made = Fleet("digits", alike, startup_s=30)
    yield made
    pids = [container.pid for container in made.containers]
    made.stop()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def ask(fleet: Fleet) -> None:
    answer = fleet.forward("POST", "/invocations", {"content-type": "application/json"}, ROW, 10)
    assert answer.status == 200, answer.body


@pytest.mark.long
def test_containers_come_and_go_under_load_and_a_dead_one_is_replaced(fleet: Fleet) -> None:
    fleet.resize(1)
    with Load(lambda: ask(fleet)) as load:
        for replicas in (2, 1):
            load.wait_for(5)
            fleet.resize(replicas)
            assert fleet.ready == replicas
        fleet.replace(fleet.spec)
        load.wait_for(5)
    assert load.failures == []
    victim = fleet.kill_one()
    deadline = time.monotonic() + 20
    while fleet.ready < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert victim not in [container.name for container in fleet.containers]
    ask(fleet)
    assert any("Ready" in line for line in fleet.logs()[victim])


def test_a_status_passes_through(fleet: Fleet) -> None:
    fleet.resize(1)
    assert fleet.forward("POST", "/invocations", {"content-type": "image/png"}, b"x", 10).status == 415


def test_an_answer_that_is_taken_in_pieces_keeps_its_container_until_its_end(fleet: Fleet) -> None:
    fleet.resize(1)
    (container,) = fleet.containers
    kind = {"content-type": "application/json"}
    whole = fleet.forward("POST", "/invocations", kind, ROW, 10)
    for is_taken in (True, False):
        answered = fleet.stream("POST", "/invocations", kind, ROW, 10)
        assert (answered.status, answered.body, container.inflight) == (200, b"", 1)
        assert answered.pieces is not None
        if is_taken:
            assert b"".join(answered.pieces) == whole.body
        answered.pieces.close()
        assert container.inflight == 0
    with pytest.raises(httpx.LocalProtocolError):
        fleet.stream("POST", "/invocations", {"content-type": "no\nheader"}, ROW, 10)
    assert container.inflight == 0


def test_what_cannot_start_leaves_nothing(alike: ContainerSpec) -> None:
    switches = Switches(crash_at_start=True)
    fleet = Fleet("digits", alike, startup_s=20, switches=lambda: switches)
    with pytest.raises(NotHealthyError) as raised:
        fleet.resize(2)
    assert any("no-such-setting" in line for line in raised.value.lines)
    switches = Switches(never_healthy=True)
    fleet._startup_s = 0.5
    with pytest.raises(NotHealthyError):
        fleet.resize(1)
    switches = Switches(replicas=1)
    with pytest.raises(NoCapacityError):
        fleet.resize(2)
    assert fleet.containers == []
    fleet.stop()


@pytest.mark.skipif(not can_mount("/opt/ml/model"), reason="This machine allows no mount of one's own.")
def test_a_container_sees_its_model_where_the_cloud_has_it(own_home: None) -> None:
    container = Container(spec(mounted=True), "mounted")
    try:
        assert container.wait_ready(20), list(container.lines)
        assert not Path("/opt/ml/model").exists()
    finally:
        container.stop()
    assert container.exit_status is not None


def test_containers_die_with_their_parent(tmp_path: Path, alike: ContainerSpec) -> None:
    code = (
        "import sys, time, threading\n"
        "from pathlib import Path\n"
        "from modelserve.standin.containers import Container, ContainerSpec\n"
        f"spec = ContainerSpec({{}}, 'SAGEMAKER_BIND_TO_PORT', '/ping', ['serve'],"
        f" folder=Path({str(alike.folder)!r}), folder_variable='SAGEMAKER_BASE_DIR',"
        f" folder_value=Path({str(alike.folder_value)!r}))\n"
        # Started by a thread that has ended: the container must not end with that.
        "found = []\n"
        "thread = threading.Thread(target=lambda: found.append(Container(spec, 'c'))); thread.start(); thread.join()\n"
        "assert found[0].wait_ready(30), list(found[0].lines)\n"
        "print(found[0].pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "The container outlived its parent."
        time.sleep(0.05)


def test_faults_meet_the_calls_they_were_planned_for() -> None:
    faults = Faults()
    failing = Failing("Limit")
    faults.plan("Create", failing, nth=2, times=2)
    faults.plan("Delete", Delayed(0.0))
    assert [faults.meet("Create") for _ in range(4)] == [None, failing, failing, None]
    assert faults.meet("Delete") == Delayed(0.0)
    assert faults.meet("Delete") is None
    assert faults.calls == ["Create"] * 4 + ["Delete"] * 2


def test_a_plain_function_answers_over_http_and_can_cut_the_connection() -> None:
    def handle(exchange: Exchange) -> Answered:
        if exchange.path == "/cut":
            raise Broken
        text = f"{exchange.method} {exchange.path} {exchange.query} {exchange.headers['x-a']}".encode()
        return Answered(201, text + exchange.body, {"x-b": "2"})

    with LoopbackServer(answering(handle)) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        answer = client.post("/a%20b?c=d", content=b"!", headers={"x-a": "1"})
        assert (answer.status_code, answer.text, answer.headers["x-b"]) == (201, "POST /a b {'c': ['d']} 1!", "2")
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/cut")


def test_an_answer_in_pieces_is_sent_in_chunks_as_they_come_and_can_be_cut_midway() -> None:
    seen = threading.Semaphore(0)

    def pieces(*, is_cut: bool) -> Pieces:
        yield b"first"
        if is_cut:
            raise Broken
        assert seen.acquire(timeout=10)  # the next is made when the one before has arrived
        yield b"second"

    def handle(exchange: Exchange) -> Answered:
        return Answered(200, headers={"x-a": "1"}, pieces=pieces(is_cut=exchange.path == "/cut"))

    with LoopbackServer(answering(handle)) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        with client.stream("GET", "/") as answer:
            coming = answer.iter_raw()
            assert (next(coming), answer.headers["transfer-encoding"], answer.headers["x-a"]) == (
                b"first",
                "chunked",
                "1",
            )
            seen.release()
            assert list(coming) == [b"second"]
        with client.stream("GET", "/cut") as answer, pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            list(answer.iter_raw())
