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
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from modelserve import wire
from modelserve.bundle import LiveCallable
from modelserve.errors import (
    DeadlineError,
    ModelServeError,
    PoisonedRequestError,
    WorkerStartError,
)
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.tensors import Array
from modelserve.testing import models
from modelserve.testing.pools import HOWS, SIGNATURE, children, command_of, hit, live, predict, strike, wait_until

# A worker that is stopped is found out by time, which takes seconds.
STOPPED_IS_LONG = [pytest.param(how, marks=pytest.mark.long) if how == "SIGSTOP" else how for how in HOWS]


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
            zygote = next(pid for pid in children() if pid not in workers and "zygote" in command_of(pid))
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

    @pytest.mark.parametrize("how", STOPPED_IS_LONG)
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

    @pytest.mark.parametrize("how", STOPPED_IS_LONG)
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
        killer = threading.Thread(target=strike, args=(pool, how, stop))
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

    @pytest.mark.parametrize("how", STOPPED_IS_LONG)
    def test_a_worker_that_dies_while_the_pool_updates_costs_no_answer(self, how: str) -> None:
        first, second = models.linear(seed=1), models.linear(seed=2)
        x = np.ones((1, 4), np.float32)
        pool = WorkerPool(first, workers=2)
        stop = threading.Event()
        old = predict(pool, x)
        seen: list[Array] = []
        killer = threading.Thread(target=strike, args=(pool, how, stop))

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

    @pytest.mark.parametrize("how", STOPPED_IS_LONG)
    def test_a_worker_that_dies_while_the_pool_closes_costs_no_answer(self, how: str) -> None:
        pool = WorkerPool(models.slow(), workers=2)
        message = wire.encode_request({"x": np.ones((1, 128), np.float32)})
        pending = [pool.submit(message, 1) for _ in range(40)]
        victim = pool.status().workers[0].pid
        assert victim is not None
        closing = threading.Thread(target=pool.close)
        closing.start()
        hit(how, victim)
        closing.join()
        for one in pending:
            assert one.result().body.nbytes == 512

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
