"""Every moment a worker can die, and what the caller sees.

moment                        what the caller sees, however it died
loading                       nothing if it was once; else WorkerStartError with the last lines, after three tries
idle                          nothing
running, once                 nothing: it runs again elsewhere
running, every time           PoisonedRequestError naming the cause
replying                      nothing: it runs again elsewhere
the pool scales or updates    nothing
the pool closes               nothing: what was under way is answered before `close` returns, within its deadline

However: SIGKILL, SIGSEGV, SIGABRT, SIGSTOP, exit in native code, out of memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from modelserve import wire
from modelserve.bundle import LiveCallable
from modelserve.errors import (
    DeadlineError,
    DeploymentClosedError,
    ForkedProcessError,
    ModelServeError,
    OutOfMemoryError,
    OverloadedError,
    PoisonedRequestError,
    WorkerStartError,
)
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.tensors import Array, Signature, TensorSpec
from modelserve.testing import models

SIGNATURE = Signature((TensorSpec("x", "float32", ("batch", 2)),), (TensorSpec("y", "float32", ("batch", 2)),))


def live(function: Callable[[Any], Any], *, rows_independent: bool = False) -> LiveCallable:
    function.__module__ = "__main__"  # by value: workers do not have this module
    return LiveCallable(cloudpickle.dumps(function), SIGNATURE, "It is a test.", rows_independent)


def predict(pool: WorkerPool, x: Array, timeout_s: float | None = None) -> Array:
    reply = pool.submit(wire.encode_request({"x": x}), len(x), timeout_s).result()
    return wire.decode(wire.reply_layout(reply.header), reply.body)["y"]


def children() -> set[int]:
    """All processes below this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "It did not come true in time."
        threading.Event().wait(0.01)


# What a process does to itself, as source text.
HOWS = {
    "SIGKILL": "os.kill(os.getpid(), 9)",
    "SIGSEGV": "__import__('ctypes').string_at(0)",
    "SIGSTOP": "os.kill(os.getpid(), 19)",
    "exit in native code": "__import__('ctypes').CDLL(None)._exit(7)",
}


def _do(how: str, pid: int) -> None:
    """The same, from outside."""
    number = {"SIGSEGV": signal.SIGSEGV, "SIGSTOP": signal.SIGSTOP}.get(how, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _strike(pool: WorkerPool, how: str, stop: threading.Event) -> None:
    """Hit some workers, whatever stage they are in; not so often that none could ever start."""
    for strike in range(5):
        if stop.wait(1.5 if pool.settings.start == "spawn" else 0.25):
            return
        living = [member.handle.pid for crew in list(pool._roster.crews) for member in list(crew.members)]
        pids = [pid for pid in living if pid]
        if pids:
            _do(how, pids[strike % len(pids)])


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory, where this machine lets us make one."""
    folder = Path("/sys/fs/cgroup/memory/modelserve-test")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(300 << 20))
    except OSError as error:
        pytest.skip(f"No control group can be made here: {error}")
    yield folder
    wait_until(lambda: not (folder / "cgroup.procs").read_text())
    folder.rmdir()


@pytest.fixture(params=["zygote", "spawn"])
def start(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def before() -> Iterator[set[int]]:
    """Whatever the test does, it leaves no process and no descriptor behind."""
    processes, descriptors = children(), len(list(Path("/proc/self/fd").iterdir()))
    yield processes
    wait_until(lambda: children() <= processes)
    wait_until(lambda: gc.collect() >= 0 and len(list(Path("/proc/self/fd").iterdir())) <= descriptors)


@pytest.mark.usefixtures("before")
class TestDeaths:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
    def test_an_idle_worker_that_dies_is_replaced_and_nobody_notices(self, how: signal.Signals, start: str) -> None:
        pool = WorkerPool(models.linear(), workers=2, settings=PoolSettings(start=start))
        try:
            x = np.ones((1, 4), np.float32)
            expected = predict(pool, x)
            for kills in range(3):
                wait_until(lambda kills=kills: pool.status().ready == 2 and pool.status().restarts == kills)
                victim = pool.status().workers[0].pid
                assert victim is not None
                os.kill(victim, how)
                assert np.array_equal(predict(pool, x), expected)
            wait_until(lambda: pool.status().ready == 2 and pool.status().restarts == 3)
        finally:
            pool.close()

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
    def test_a_request_whose_worker_died_once_is_answered_by_another(
        self, how: signal.Signals, start: str, tmp_path: Path
    ) -> None:
        mark, number = tmp_path / "died", int(how)

        def die_once(tensors: Any) -> Any:
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), number)
                time.sleep(30)
            return {"y": tensors["x"]}

        pool = WorkerPool(live(die_once), workers=1, settings=PoolSettings(start=start))
        try:
            x = np.ones((1, 2), np.float32)
            assert np.array_equal(predict(pool, x), x)
            assert pool.status().restarts == 1
        finally:
            pool.close()

    @pytest.mark.parametrize(
        ("deed", "cause"),
        [("kill", "SIGKILL"), ("fault", "SIGSEGV"), ("exit", "status 7"), ("abort", "SIGABRT")],
    )
    def test_a_request_that_always_kills_is_refused_with_the_cause_and_its_neighbours_are_answered(
        self, deed: str, cause: str
    ) -> None:
        def die(tensors: Any) -> Any:
            if (tensors["x"] < 0).any():
                if deed == "exit":
                    os._exit(7)
                numbers = {"kill": signal.SIGKILL, "fault": signal.SIGSEGV, "abort": signal.SIGABRT}
                os.kill(os.getpid(), numbers[deed])
                time.sleep(30)
            return {"y": tensors["x"]}

        pool = WorkerPool(live(die, rows_independent=True), workers=2)
        try:
            good, bad = np.ones((1, 2), np.float32), -np.ones((1, 2), np.float32)
            pending = [pool.submit(wire.encode_request({"x": x}), 1) for x in (good, bad, good, good)]
            with pytest.raises(PoisonedRequestError, match=cause):
                pending[1].result()
            for one in (pending[0], *pending[2:]):
                reply = one.result()
                assert np.array_equal(wire.decode(wire.reply_layout(reply.header), reply.body)["y"], good)
            # Known by now: refused without costing another worker.
            restarts = pool.status().restarts
            with pytest.raises(PoisonedRequestError):
                predict(pool, bad)
            assert pool.status().restarts == restarts
        finally:
            pool.close()

    def test_a_worker_that_was_stopped_is_replaced_and_its_request_answered(self) -> None:
        pool = WorkerPool(models.linear(), workers=1)
        try:
            victim = pool.status().workers[0].pid
            assert victim is not None
            os.kill(victim, signal.SIGSTOP)
            assert predict(pool, np.ones((1, 4), np.float32), 20).shape == (1, 3)
            assert pool.status().restarts == 1
        finally:
            pool.close()

    def test_a_run_that_hangs_is_ended_and_the_next_request_answered(self) -> None:
        def hang(tensors: Any) -> Any:
            if (tensors["x"] < 0).any():
                time.sleep(60)
            return {"y": tensors["x"]}

        pool = WorkerPool(live(hang), workers=1, settings=PoolSettings(timeout_s=1.0))
        try:
            good = np.ones((1, 2), np.float32)
            start_s = time.monotonic()
            with pytest.raises(DeadlineError):
                predict(pool, -good, 0.3)
            assert time.monotonic() - start_s < 0.9
            assert np.array_equal(predict(pool, good, 10), good)
            assert pool.status().restarts == 1
        finally:
            pool.close()

    def test_a_task_gets_its_deadline_too(self) -> None:
        def hang(tensors: Any) -> Any:
            time.sleep(60)
            return tensors

        async def ask(pool: WorkerPool) -> None:
            await pool.submit(wire.encode_request({"x": np.ones((1, 2), np.float32)}), 1, 0.2)

        pool = WorkerPool(live(hang), workers=1, settings=PoolSettings(timeout_s=30))
        try:
            start_s = time.monotonic()
            with pytest.raises(DeadlineError):
                asyncio.run(ask(pool))
            assert time.monotonic() - start_s < 2
        finally:
            pool.close(drain_s=0)

    def test_the_zygotes_death_costs_no_request(self) -> None:
        pool = WorkerPool(models.linear(), workers=2)
        try:
            x = np.ones((1, 4), np.float32)
            expected = predict(pool, x)
            workers = {worker.pid for worker in pool.status().workers}
            zygote = next(pid for pid in children() if pid not in workers and "zygote" in _command(pid))
            os.kill(zygote, signal.SIGKILL)
            for _ in range(20):
                assert np.array_equal(predict(pool, x), expected)
            wait_until(lambda: not workers & {worker.pid for worker in pool.status().workers})
            wait_until(lambda: pool.status().ready == 2)
            assert np.array_equal(predict(pool, x), expected)
        finally:
            pool.close()

    def test_a_model_that_kills_while_loading_is_given_up_with_its_last_words(self, start: str) -> None:
        class Deadly:
            def __reduce__(self) -> Any:
                return exec, ("import os, sys; print('last words', file=sys.stderr, flush=True); os._exit(3)",)

        servable = LiveCallable(cloudpickle.dumps(Deadly()), SIGNATURE, "It is a test.")
        with pytest.raises(WorkerStartError, match=r"status 3(.|\n)*last words"):
            WorkerPool(servable, workers=1, settings=PoolSettings(start=start))

    def test_a_model_that_cannot_be_loaded_says_why(self, start: str) -> None:
        bundle = models.linear()
        data = bundle.model_path.read_bytes()
        bundle.model_path.write_bytes(b"\0" * len(data))
        try:
            with pytest.raises(ModelServeError, match="cannot load this model"):
                WorkerPool(bundle, workers=1, settings=PoolSettings(start=start))
        finally:
            bundle.model_path.write_bytes(data)

    @pytest.mark.parametrize("how", HOWS)
    def test_a_worker_that_dies_once_while_it_loads_is_replaced(self, how: str, start: str, tmp_path: Path) -> None:
        mark = tmp_path / "died"

        class DeadlyOnce:
            def __reduce__(self) -> Any:
                deed = f"import os; mark = {str(mark)!r}; first = not os.path.exists(mark); open(mark, 'w').close()\n"
                return exec, (f"{deed}if first: {HOWS[how]}",)

        def load_and_answer(tensors: Any, deadly: Any = DeadlyOnce()) -> Any:  # noqa: B008  # unpickled with the function
            return {"y": tensors["x"]}

        pool = WorkerPool(live(load_and_answer), workers=1, settings=PoolSettings(start=start))
        try:
            x = np.ones((1, 2), np.float32)
            assert mark.exists()
            assert np.array_equal(predict(pool, x), x)
        finally:
            pool.close()

    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize("delay_ms", [0, 1, 4])
    @pytest.mark.long
    def test_a_worker_that_dies_around_its_reply_costs_no_answer(self, how: str, delay_ms: int, tmp_path: Path) -> None:
        mark = str(tmp_path / "died")

        def answer_and_die(tensors: Any, deed: str = HOWS[how], delay_s: float = delay_ms / 1e3) -> Any:
            import threading

            if (tensors["x"] > 5).any() and not os.path.exists(f"{mark}-{tensors['x'][0, 0]}"):  # noqa: PTH110  # runs in the worker
                open(f"{mark}-{tensors['x'][0, 0]}", "w").close()  # noqa: PTH123  # as above
                threading.Timer(delay_s, exec, (f"import os; {deed}",)).start()
            # Large enough to be fetched in a second step.
            return {"y": np.repeat(tensors["x"], 40_000, axis=0)}

        pool = WorkerPool(live(answer_and_die), workers=2)
        try:
            for value in (1, 9, 2, 8, 3, 7, 4):
                x = np.full((1, 2), value, np.float32)
                assert np.array_equal(predict(pool, x, 30), np.repeat(x, 40_000, axis=0))
        finally:
            pool.close()

    @pytest.mark.parametrize("how", HOWS)
    def test_a_worker_that_dies_while_the_pool_scales_is_replaced(self, how: str, start: str) -> None:
        pool = WorkerPool(models.linear(), workers=1, settings=PoolSettings(start=start))
        stop = threading.Event()
        x = np.ones((1, 4), np.float32)
        expected = predict(pool, x)
        wrong: list[Any] = []

        def ask() -> None:
            while not stop.is_set():
                answer = predict(pool, x, 30)
                if not np.array_equal(answer, expected):
                    wrong.append(answer)

        caller = threading.Thread(target=ask)
        killer = threading.Thread(target=_strike, args=(pool, how, stop))
        try:
            caller.start()
            killer.start()
            for workers in (4, 2, 3, 1):
                pool.scale(workers)
            stop.set()
            killer.join()
            caller.join()
            wait_until(lambda: pool.status().ready == 1 and len(pool.status().workers) == 1)
            assert np.array_equal(predict(pool, x, 30), expected)
            assert not wrong
        finally:
            stop.set()
            pool.close()

    @pytest.mark.parametrize("how", HOWS)
    def test_a_worker_that_dies_while_the_pool_updates_costs_no_answer(self, how: str) -> None:
        first, second = models.linear(seed=1), models.linear(seed=2)
        x = np.ones((1, 4), np.float32)
        pool = WorkerPool(first, workers=2)
        stop = threading.Event()
        old = predict(pool, x)
        seen: list[Array] = []
        killer = threading.Thread(target=_strike, args=(pool, how, stop))

        def ask() -> None:
            while not stop.is_set():
                seen.append(predict(pool, x, 30))

        caller = threading.Thread(target=ask)
        try:
            caller.start()
            killer.start()
            for servable in (second, first, second):
                pool.update(servable)
            stop.set()
            killer.join()
            caller.join()
            new = predict(pool, x, 30)
            assert not np.array_equal(old, new)
            assert len(seen) > 10
            assert all(np.array_equal(one, old) or np.array_equal(one, new) for one in seen)
        finally:
            stop.set()
            pool.close()

    @pytest.mark.parametrize("how", HOWS)
    def test_a_worker_that_dies_while_the_pool_closes_costs_no_answer(self, how: str) -> None:
        pool = WorkerPool(models.slow(), workers=2)
        message = wire.encode_request({"x": np.ones((1, 128), np.float32)})
        pending = [pool.submit(message, 1) for _ in range(40)]
        victim = pool.status().workers[0].pid
        assert victim is not None
        closing = threading.Thread(target=pool.close)
        closing.start()
        _do(how, victim)
        closing.join()
        for one in pending:
            assert one.result().body.nbytes == 512

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

    def test_a_callable_without_memory_fails_its_request_only(self) -> None:
        def hungry(tensors: Any) -> Any:
            if (tensors["x"] < 0).any():
                raise MemoryError("Unable to allocate 8 TiB")
            return {"y": tensors["x"]}

        pool = WorkerPool(live(hungry, rows_independent=True), workers=1)
        try:
            good = np.ones((1, 2), np.float32)
            pending = [pool.submit(wire.encode_request({"x": x}), 1) for x in (good, -good, good)]
            with pytest.raises(OutOfMemoryError, match="fewer rows"):
                pending[1].result()
            assert [pending[at].result().body.nbytes for at in (0, 2)] == [8, 8]
            assert pool.status().restarts == 0
        finally:
            pool.close()

    def test_a_worker_that_the_system_ends_for_want_of_memory_is_named_so(self, small_group: Path) -> None:
        def grow(tensors: Any, group: str = str(small_group)) -> Any:
            if (tensors["x"] < 0).any():
                Path(group, "cgroup.procs").write_text(str(os.getpid()))
                np.ones(1 << 30, np.uint8)
            return {"y": tensors["x"]}

        pool = WorkerPool(live(grow), workers=1)
        try:
            with pytest.raises(PoisonedRequestError, match="SIGKILL because the machine, or its control group"):
                predict(pool, -np.ones((1, 2), np.float32), 60)
            assert predict(pool, np.ones((1, 2), np.float32)).shape == (1, 2)
        finally:
            pool.close()

    def test_no_request_is_lost_while_workers_are_killed_under_load(self) -> None:
        self._storm(seconds=3.0)

    @pytest.mark.long
    def test_no_request_is_lost_in_half_a_minute_of_kills(self) -> None:
        self._storm(seconds=30.0)

    def _storm(self, seconds: float) -> None:
        pool = WorkerPool(models.linear(), workers=2)
        stop = threading.Event()
        failures: list[BaseException] = []
        answered = [0] * 6
        bundle_weights = np.arange(4, dtype=np.float32)

        def ask(caller: int) -> None:
            x = (bundle_weights + caller)[np.newaxis]
            expected = predict(pool, x)
            while not stop.is_set():
                try:
                    assert np.array_equal(predict(pool, x, 20), expected)
                    answered[caller] += 1
                except BaseException as error:  # noqa: BLE001  # whatever it is, it is a failure
                    failures.append(error)

        callers = [threading.Thread(target=ask, args=(caller,)) for caller in range(6)]
        try:
            for caller in callers:
                caller.start()
            end = time.monotonic() + seconds
            kills = 0
            while time.monotonic() < end:
                stop.wait(0.2)
                pids = [worker.pid for worker in pool.status().workers if worker.pid]
                if pids:
                    os.kill(pids[kills % len(pids)], signal.SIGKILL)
                    kills += 1
            stop.set()
            for caller in callers:
                caller.join(30)
            assert not failures
            assert min(answered) > 0
            assert kills >= seconds * 2
        finally:
            stop.set()
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

    def test_no_memory_for_another_worker_is_said_and_the_others_go_on(
        self, start: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = WorkerPool(models.linear(), workers=1, settings=PoolSettings(start=start))
        try:
            launcher = type(pool._roster.current._launcher)

            def refuse(*_: Any) -> Any:
                raise OutOfMemoryError("No worker process could be started: no memory.")

            with monkeypatch.context() as patch:
                patch.setattr(launcher, "start", refuse)
                with pytest.raises(OutOfMemoryError, match="no memory"):
                    pool.scale(3)
            assert pool.status().wanted == 1
            assert predict(pool, np.ones((1, 4), np.float32)).shape == (1, 3)
            pool.scale(2)
            assert pool.status().ready == 2
        finally:
            pool.close()

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


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
