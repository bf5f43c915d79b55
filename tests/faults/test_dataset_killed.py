"""Runs over a data set that are killed, that find no room, and that share their workers with others."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import modelserve as ms
from modelserve.bundle import Bundle, Step, write
from modelserve.dataset import batch_size, folder
from modelserve.session import Session
from modelserve.testing import models

ROWS = 40_000
FEATURES = 8

PROGRAM = """
import resource, sys
import modelserve as ms
from modelserve.dataset import batch_size

bundle, source, into, limit_bytes = sys.argv[1:]
batch_size.PART_BYTES = 64 << 10
with ms.Model.load(bundle).serve("local", workers=1, name="killed") as deployment:
    print("serving", flush=True)
    if int(limit_bytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_bytes), int(limit_bytes)))
    report = deployment.predict_dataset(source, into, keep=["id"], outputs=["label", "probabilities"], batch_rows=256)
print(report.rows, report.resumed_rows, flush=True)
"""


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path, rows: np.ndarray) -> Path:
    columns = {f"f{at}": rows[:, at] for at in range(FEATURES)}
    pq.write_table(pa.table({"id": np.arange(ROWS), **columns}), tmp_path / "rows.parquet", row_group_size=7000)
    return tmp_path / "rows.parquet"


@pytest.fixture
def bundle() -> Bundle:
    return models.mlp(FEATURES)


def started(bundle: Bundle, source: Path, into: Path, limit_bytes: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(bundle.path), str(source), str(into), str(limit_bytes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def content(into: Path) -> dict[str, str]:
    files = [path for path in into.iterdir() if path.name != folder.REPORT]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def killed_at_random(bundle: Bundle, source: Path, into: Path, moments: Iterator[float]) -> int:
    """Start runs and kill each after a moment, until one comes through; how many were killed."""
    for count, moment in enumerate(moments):
        process = started(bundle, source, into)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        status, _, err = ended(process)
        assert status in (0, -signal.SIGKILL), err
        if status == 0:
            return count
    status, _, err = ended(started(bundle, source, into))
    assert status == 0, err
    return count + 1


@pytest.mark.parametrize("seed", [0])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(seed, bundle, source, tmp_path) -> None:
    assert ended(started(bundle, source, tmp_path / "whole"))[0] == 0
    random.seed(seed)
    killed = killed_at_random(bundle, source, tmp_path / "out", (random.uniform(0.05, 0.4) for _ in range(2)))
    assert killed > 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.long
@pytest.mark.timeout(290)
def test_fifty_kills_lose_nothing_and_change_no_byte(bundle, source, tmp_path) -> None:
    assert ended(started(bundle, source, tmp_path / "whole"))[0] == 0
    wanted = content(tmp_path / "whole")

    def killed_in(number: int) -> int:
        chance = random.Random(number)
        into = tmp_path / f"out-{number}"
        killed = killed_at_random(bundle, source, into, (chance.uniform(0.0, 0.2) for _ in range(12)))
        assert content(into) == wanted
        return killed

    killed = 0
    with ThreadPoolExecutor(2) as threads:
        for first in range(0, 20, 2):
            killed += sum(threads.map(killed_in, (first, first + 1)))
            if killed >= 50:
                break
    assert killed >= 50


@pytest.mark.long
def test_a_disk_that_is_full_is_said_and_the_call_goes_on_when_there_is_room(bundle, source, tmp_path) -> None:
    # As large as no part may be: what a full disk does to a write, without one.
    status, _, err = ended(started(bundle, source, tmp_path / "out", limit_bytes=9_000))
    assert status == 1
    assert "SinkError" in err
    assert "cannot be written" in err
    assert not (tmp_path / "out").exists()  # not even the first part had room
    assert ended(started(bundle, source, tmp_path / "out"))[:2] == (0, f"serving\n{ROWS} 0\n")
    assert pq.read_table(tmp_path / "out").num_rows == ROWS


def test_a_folder_that_cannot_be_made_is_refused(bundle, tmp_path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        ms.Model(bundle).serve("local", workers=1, name="nowhere") as deployment,
        pytest.raises(ms.errors.SinkError, match="cannot be written to"),
    ):
        deployment.predict_dataset({"x": np.zeros((4, FEATURES), np.float32)}, tmp_path / "file" / "out")


def test_a_worker_that_is_killed_during_the_run_costs_no_row(bundle, source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batch_size, "PART_BYTES", 64 << 10)
    with ms.Model(bundle).serve("local", workers=2, name="deaths") as deployment:
        deployment.predict_dataset(source, tmp_path / "whole", keep=["id"], batch_rows=128)
        killing = threading.Thread(target=_kill_workers, args=(deployment, tmp_path / "out"))
        killing.start()
        report = deployment.predict_dataset(source, tmp_path / "out", keep=["id"], batch_rows=128)
        killing.join(30)
    assert (report.rows, report.failures) == (ROWS, 0)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def _kill_workers(deployment: ms.Deployment, into: Path) -> None:
    """Two of them, one after the other, once the run has begun."""
    end = time.monotonic() + 20
    while not list(into.glob("part-*")) and time.monotonic() < end:
        time.sleep(0.001)
    for _ in range(2):
        pids = [replica.details["pid"] for replica in deployment.status().replicas if replica.details["pid"]]
        if pids:
            os.kill(pids[0], signal.SIGKILL)
        time.sleep(0.05)


@pytest.fixture
def telling(tmp_path: Path) -> Bundle:
    """A model whose answers tell which rows were run together: x minus the mean of the run's rows.

    It says that its rows are independent, so that workers may join, split and slice them.
    """
    made = models.joint()
    manifest = made.manifest
    return write(
        onnx.load(made.model_path),
        signature=made.signature,
        origin=manifest.origin,
        lineage=(Step("make", {"kind": "telling"}),),
        example=made.example(),
        rows_independent=True,
    )


@pytest.mark.parametrize("batch_rows", [16, 2048])
def test_exactly_the_rows_of_a_batch_are_run_together_whoever_else_asks(batch_rows, telling, tmp_path) -> None:
    rows = np.random.default_rng(1).normal(size=(30_000, 2)).astype(np.float32)
    session = Session(telling)
    wanted = np.concatenate(
        [session.run({"x": rows[at : at + batch_rows]})["y"] for at in range(0, len(rows), batch_rows)]
    )
    stop = threading.Event()
    with ms.Model(telling).serve("local", workers=2, name="shared") as deployment:

        def disturb() -> None:
            while not stop.is_set():
                deployment.predict(rows[:7])

        others = [threading.Thread(target=disturb) for _ in range(3)]
        for other in others:
            other.start()
        try:
            deployment.predict_dataset(rows, tmp_path / "out", batch_rows=batch_rows)
        finally:
            stop.set()
            for other in others:
                other.join()
    found = np.stack(pq.read_table(tmp_path / "out")["y"].to_pylist()).astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))
