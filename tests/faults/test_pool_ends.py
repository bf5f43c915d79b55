"""A pool that is closed, scaled, updated, flooded or orphaned: every caller is told, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelserve import wire
from modelserve.errors import (
    DeploymentClosedError,
    ForkedProcessError,
    ModelServeError,
    OverloadedError,
)
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.tensors import Array
from modelserve.testing import models
from modelserve.testing.pools import live, predict, wait_until


@pytest.mark.usefixtures("before")
class TestEnds:
    def test_close_returns_at_its_deadline_and_tells_whoever_waits(self) -> None:
        def hang(tensors: Any) -> Any:
            time.sleep(60)
            return tensors

        pool = WorkerPool(live(hang), workers=1)
        pending = pool.submit(wire.encode_request({"x": np.ones((1, 2), np.float32)}), 1)
        start_s = time.monotonic()
        pool.close(drain_s=0.5)
        assert 0.5 <= time.monotonic() - start_s < 10
        with pytest.raises(DeploymentClosedError, match="before this request was answered"):
            pending.result()

    def test_scaling_down_ends_a_worker_that_does_not_finish_and_its_request_runs_elsewhere(
        self, tmp_path: Path
    ) -> None:
        mark = tmp_path / "hung"

        def hang_once(tensors: Any) -> Any:
            if (tensors["x"] < 0).any() and not mark.exists():
                mark.touch()
                time.sleep(60)
            return {"y": tensors["x"]}

        pool = WorkerPool(live(hang_once), workers=2, settings=PoolSettings(drain_s=0.3))
        try:
            bad = -np.ones((1, 2), np.float32)
            pending = pool.submit(wire.encode_request({"x": bad}), 1)
            wait_until(mark.exists)
            pool.scale(0)
            pool.scale(1)
            reply = pending.result()
            assert np.array_equal(wire.decode(wire.reply_layout(reply.header), reply.body)["y"], bad)
        finally:
            pool.close()

    @pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX warns of it, where another test imported JAX
    def test_a_fork_of_the_application_is_refused(self) -> None:
        pool = WorkerPool(models.linear(), workers=1)
        try:
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    predict(pool, np.ones((1, 4), np.float32))
                except ForkedProcessError:
                    os.write(write, b"refused")
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            assert os.read(read, 16) == b"refused"
            os.close(read)
            os.close(write)
            assert predict(pool, np.ones((1, 4), np.float32)).shape == (1, 3)
        finally:
            pool.close()

    def test_a_flood_is_refused_with_a_hint_and_memory_stays_bounded(self) -> None:
        pool = WorkerPool(models.slow(), workers=1, settings=PoolSettings(max_inflight=8))
        try:
            message = wire.encode_request({"x": np.ones((1, 128), np.float32)})
            pending, refused = [], []
            for _ in range(50):
                try:
                    pending.append(pool.submit(message, 1))
                except OverloadedError as error:
                    refused.append(error)
            assert 8 <= len(pending) < 50
            assert refused
            assert all(error.retry_after_s > 0 for error in refused)
            for one in pending:
                one.result()
        finally:
            pool.close()

    def test_close_answers_what_is_under_way_and_refuses_what_comes_after(self) -> None:
        pool = WorkerPool(models.slow(), workers=1)
        message = wire.encode_request({"x": np.ones((1, 128), np.float32)})
        pending = [pool.submit(message, 1) for _ in range(5)]
        pool.close()
        pool.close()
        for one in pending:
            assert one.result().body.nbytes == 512
        with pytest.raises(DeploymentClosedError):
            pool.submit(message, 1)

    def test_an_update_mixes_no_answer_and_fails_none(self) -> None:
        first, second = models.linear(seed=1), models.linear(seed=2)
        x = np.ones((1, 4), np.float32)
        pool = WorkerPool(first, workers=2)
        try:
            old = predict(pool, x)
            seen: list[Array] = []
            stop = threading.Event()

            def ask() -> None:
                while not stop.is_set():
                    seen.append(predict(pool, x))

            caller = threading.Thread(target=ask)
            caller.start()
            pool.update(second)
            new = predict(pool, x)
            stop.set()
            caller.join()
            assert not np.array_equal(old, new)
            assert all(np.array_equal(one, old) or np.array_equal(one, new) for one in seen)
            wait_until(lambda: len(pool.status().workers) == 2)
        finally:
            pool.close()

    def test_an_update_that_cannot_load_leaves_the_old_model_answering(self) -> None:
        first, second = models.linear(seed=1), models.linear(seed=3)
        data = second.model_path.read_bytes()
        second.model_path.write_bytes(b"\0" * len(data))
        pool = WorkerPool(first, workers=1)
        try:
            x = np.ones((1, 4), np.float32)
            old = predict(pool, x)
            with pytest.raises(ModelServeError):
                pool.update(second)
            assert np.array_equal(predict(pool, x), old)
            assert pool.status().digest == first.digest
        finally:
            pool.close()
            second.model_path.write_bytes(data)

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_an_application_that_is_killed_leaves_no_process_and_no_memory(
        self, how: signal.Signals, start: str, tmp_path: Path
    ) -> None:
        program = """
import sys, time
import numpy as np
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.testing import models
pool = WorkerPool(models.linear(), workers=2, settings=PoolSettings(start=sys.argv[1]))
print(*(worker.pid for worker in pool.status().workers), flush=True)
time.sleep(60)
"""
        shared_before = sorted(Path("/dev/shm").iterdir())
        application = subprocess.Popen(
            [sys.executable, "-c", program, start],
            stdout=subprocess.PIPE,
            env={**os.environ, "MODELSERVE_HOME": str(tmp_path)},
            text=True,
        )
        assert application.stdout is not None
        pids = [int(pid) for pid in application.stdout.readline().split()]
        assert len(pids) == 2
        application.send_signal(how)
        application.wait()
        application.stdout.close()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        assert sorted(Path("/dev/shm").iterdir()) == shared_before

    def test_scaling_to_nothing_rests_and_a_request_wakes(self) -> None:
        pool = WorkerPool(models.linear(), workers=1)
        try:
            pool.scale(0)
            wait_until(lambda: not pool.status().workers)
            assert predict(pool, np.ones((1, 4), np.float32)).shape == (1, 3)
        finally:
            pool.close()
