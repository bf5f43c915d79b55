"""Requests that go to the workers as one, and whatever can happen to them: each caller sees what it would see alone."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from modelserve import wire
from modelserve.errors import (
    DeadlineError,
    DeploymentClosedError,
    ModelChangedError,
    ModelRunError,
    ModelServeError,
    OverloadedError,
    PoisonedRequestError,
    WireError,
)
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.runtime.joint import Share
from modelserve.runtime.pending import Pending
from modelserve.session import Session
from modelserve.tensors import Array
from modelserve.testing import models
from modelserve.testing.pools import live, wait_until

leaves_nothing = pytest.mark.usefixtures("before")
ROWS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def expected() -> Array:
    """Of the model in this process; the runtime keeps files of its own open from then on."""
    return Session(models.linear()).run({"x": ROWS})["y"]


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(models.linear(), workers=1)
    yield pool
    pool.close()


def submit(pool: WorkerPool, row: Array, timeout_s: float | None = None, digest: str | None = None) -> Pending | Share:
    return pool.submit(wire.encode_request({"x": row[np.newaxis]}), 1, timeout_s, digest=digest)


def decoded(reply: wire.Reply) -> Array:
    return wire.decode(wire.reply_layout(reply.header), reply.body)["y"][0]


async def one(pool: WorkerPool, row: Array, timeout_s: float | None = None) -> Array | ModelServeError:
    try:
        return decoded(await submit(pool, row, timeout_s))
    except ModelServeError as error:
        return error


async def together(pool: WorkerPool, rows: Array, timeout_s: float | None = None) -> list[Array | ModelServeError]:
    return await asyncio.gather(*(one(pool, row, timeout_s) for row in rows))


def learnt(function: Callable[[Any], Any], **settings: Any) -> WorkerPool:
    """A pool of a function that has learnt that joining pays."""
    pool = WorkerPool(live(function, rows_independent=True), workers=1, settings=PoolSettings(**settings))
    for rows in (1, 2, 4, 8, 16, 32, 64) * 4:
        pool.submit(wire.encode_request({"x": np.zeros((rows, 2), np.float32)}), rows).result()
    return pool


def pairs(count: int, bad: int | None = None) -> Array:
    rows = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    if bad is not None:
        rows[bad] = -1
    return rows


def test_tasks_that_ask_in_one_turn_share_a_run_and_each_gets_its_own_answer(pool: WorkerPool, expected: Array) -> None:
    asked: list[Pending | Share] = []

    async def ask(row: Array) -> Array:
        asked.append(submit(pool, row))
        return decoded(await asked[-1])

    async def all_of_them() -> list[Array]:
        return await asyncio.gather(*map(ask, ROWS))

    np.testing.assert_allclose(asyncio.run(all_of_them()), expected, rtol=1e-5, atol=1e-6)
    (worker,) = pool.status().workers
    assert worker.runs <= 4
    shares = [one for one in asked if isinstance(one, Share)]
    assert len(shares) == 63  # the first finds nothing under way, and goes by itself
    assert all(share.joined >= 2 and share.began_ns <= share.computed_ns for share in shares)
    assert pool.status().inflight == 0


def test_who_asks_alone_is_not_held_back(pool: WorkerPool) -> None:
    async def ask() -> None:
        for row in ROWS[:5]:
            asked = submit(pool, row)
            assert isinstance(asked, Pending)
            await asked

    asyncio.run(ask())


def test_threads_are_not_gathered(pool: WorkerPool) -> None:
    assert all(isinstance(submit(pool, row), Pending) for row in ROWS[:5])


def test_the_answer_is_to_what_the_array_held_when_it_was_asked(pool: WorkerPool, expected: Array) -> None:

    async def ask() -> list[Array]:
        row, asked = ROWS[0].copy(), []
        for values in ROWS:
            row[:] = values
            asked.append(submit(pool, row))
        return [decoded(await one) for one in asked]

    np.testing.assert_allclose(asyncio.run(ask()), expected, rtol=1e-5, atol=1e-6)


@leaves_nothing
def test_only_the_one_that_the_model_refuses_fails() -> None:
    def refuse(tensors: Any) -> Any:
        if (tensors["x"] < 0).any():
            raise ValueError("below 0")
        return {"y": tensors["x"]}

    pool = learnt(refuse)
    try:
        rows = pairs(40, bad=17)
        answers = asyncio.run(together(pool, rows))
        assert [place for place, answer in enumerate(answers) if isinstance(answer, ModelRunError)] == [17]
        assert "below 0" in str(answers[17])
        assert all(np.array_equal(answers[place], rows[place]) for place in range(40) if place != 17)
    finally:
        pool.close()


@leaves_nothing
def test_only_the_one_that_workers_die_of_is_refused() -> None:
    def die(tensors: Any) -> Any:
        if (tensors["x"] < 0).any():
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(30)
        return {"y": tensors["x"]}

    pool = learnt(die)
    try:
        rows = pairs(20, bad=11)
        answers = asyncio.run(together(pool, rows))
        assert [place for place, answer in enumerate(answers) if isinstance(answer, PoisonedRequestError)] == [11]
        assert "SIGKILL" in str(answers[11])
        assert all(np.array_equal(answers[place], rows[place]) for place in range(20) if place != 11)
        assert pool.status().restarts <= 5
    finally:
        pool.close()


@leaves_nothing
@pytest.mark.long
def test_no_request_of_many_tasks_is_lost_while_workers_are_killed(expected: Array) -> None:
    pool = WorkerPool(models.linear(), workers=2)
    stop = threading.Event()

    def kill() -> None:
        for _ in range(12):
            stop.wait(0.2)
            pids = [worker.pid for worker in pool.status().workers if worker.pid]
            if pids:
                os.kill(pids[0], signal.SIGKILL)
        stop.set()

    async def ask(place: int) -> int:
        answered = 0
        while not stop.is_set():
            np.testing.assert_allclose(await one(pool, ROWS[place]), expected[place], rtol=1e-5, atol=1e-6)
            answered += 1
        return answered

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*map(ask, range(64)))

    killer = threading.Thread(target=kill)
    try:
        killer.start()
        assert min(asyncio.run(all_of_them())) > 0
        killer.join()
        assert pool.status().restarts >= 5
    finally:
        stop.set()
        pool.close()


@leaves_nothing
def test_a_run_that_hangs_fails_every_share_in_time() -> None:
    def hang(tensors: Any) -> Any:
        if (tensors["x"] < 0).any():
            time.sleep(60)
        return {"y": tensors["x"]}

    pool = learnt(hang)
    try:
        begin = time.monotonic()
        answers = asyncio.run(together(pool, pairs(20, bad=0), 0.5))
        assert time.monotonic() - begin < 3
        assert {type(answer) for answer in answers} == {DeadlineError}
    finally:
        pool.close(drain_s=0)


def test_a_task_that_is_cancelled_takes_no_other_with_it(pool: WorkerPool) -> None:
    async def ask() -> list[Any]:
        tasks = [asyncio.ensure_future(one(pool, row)) for row in ROWS]
        await asyncio.sleep(0)
        tasks[5].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(ask())
    assert [place for place, answer in enumerate(answers) if isinstance(answer, asyncio.CancelledError)] == [5]
    assert sum(isinstance(answer, np.ndarray) for answer in answers) == 63
    assert pool.status().inflight == 0


def test_a_call_that_waits_in_the_loop_itself_is_answered(pool: WorkerPool) -> None:
    async def ask() -> None:
        asked = [submit(pool, row) for row in ROWS[:10]]
        assert isinstance(asked[9], Share)
        last = asked[9].result()  # nobody else can run meanwhile: it has to send the others, too
        np.testing.assert_array_equal(decoded(last), decoded(await asked[9]))
        assert all([(await one).body.nbytes == 12 for one in asked])

    asyncio.run(asyncio.wait_for(ask(), 10))


@pytest.mark.parametrize("in_the_loop", [True, False])
@leaves_nothing
def test_what_was_asked_before_the_pool_closes_is_answered(in_the_loop: bool, expected: Array) -> None:
    pool = WorkerPool(models.linear(), workers=1)

    async def ask() -> list[Array]:
        asked = [submit(pool, row) for row in ROWS]
        if in_the_loop:
            pool.close()
        else:
            closing = threading.Thread(target=pool.close)
            closing.start()
            closing.join()  # the loop cannot turn before
        with pytest.raises(DeploymentClosedError):
            submit(pool, ROWS[0])
        return [decoded(await one) for one in asked]

    np.testing.assert_allclose(asyncio.run(ask()), expected, rtol=1e-5, atol=1e-6)


def test_after_an_update_each_share_knows_whether_it_was_for_the_old_model(pool: WorkerPool, expected: Array) -> None:
    new = models.linear(seed=2)
    digest = models.linear().digest

    async def ask() -> tuple[list[Pending | Share], list[Pending | Share]]:
        any_model = [submit(pool, row) for row in ROWS[:8]]
        this_model = [submit(pool, row, digest=digest) for row in ROWS[:8]]
        pool.update(new)  # the loop cannot turn before
        for one in this_model:
            with pytest.raises(ModelChangedError):
                await one
        answers = [decoded(await one) for one in any_model[1:]]
        np.testing.assert_allclose(answers, Session(new).run({"x": ROWS[1:8]})["y"], rtol=1e-5, atol=1e-6)
        return any_model, this_model

    asyncio.run(ask())


def test_a_request_for_a_model_that_is_gone_is_refused_although_others_go_together(pool: WorkerPool) -> None:
    pool.update(models.linear(seed=2))

    async def ask() -> None:
        asked = [submit(pool, row) for row in ROWS[:3]]
        with pytest.raises(ModelChangedError):
            submit(pool, ROWS[3], digest=models.linear().digest)
        for one in asked:
            await one

    asyncio.run(ask())


@leaves_nothing
def test_no_more_are_taken_than_may_be_under_way() -> None:
    pool = WorkerPool(models.linear(), workers=1, settings=PoolSettings(max_inflight=20))
    try:
        answers = asyncio.run(together(pool, ROWS))
        refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
        assert (len(refused), len(answers)) == (44, 64)
        assert sum(isinstance(answer, np.ndarray) for answer in asyncio.run(together(pool, ROWS[:20]))) == 20
    finally:
        pool.close()


def test_a_joint_request_that_is_given_up_twice_is_counted_off_once(pool: WorkerPool) -> None:
    async def ask() -> None:
        asked = [submit(pool, row) for row in ROWS[:10]]
        share = asked[5]
        assert isinstance(share, Share)
        for _ in range(2):  # as its caller and the supervisor may at the same moment
            share._joint.fail(DeadlineError("late"))
        share._joint.hand_out()
        with pytest.raises(DeadlineError):
            await share
        await asked[0]

    asyncio.run(ask())
    wait_until(lambda: pool.status().inflight == 0)


@pytest.mark.parametrize("bad", [1, 7])
@pytest.mark.parametrize(("header", "size", "message"), [(None, 12, "16 bytes"), (b"{", 16, "not JSON")])
def test_what_is_no_request_fails_by_itself(
    pool: WorkerPool, bad: int, header: bytes | None, size: int, message: str
) -> None:
    whole = wire.encode_request({"x": ROWS[:1]})
    wrong = wire.Message(header or whole.header, (whole.buffers[0][:size],))

    async def ask() -> None:
        asked = [pool.submit(wrong if place == bad else whole, 1) for place in range(12)]
        for place, one in enumerate(asked):
            if place == bad:
                with pytest.raises(WireError, match=message):
                    await one
            else:
                assert (await one).body.nbytes == 12

    asyncio.run(ask())
    wait_until(lambda: pool.status().inflight == 0)


@leaves_nothing
def test_where_there_is_no_memory_for_many_there_may_be_for_one() -> None:
    pool = WorkerPool(models.linear(features=512), workers=1, settings=PoolSettings(max_bytes=100 << 10))
    rows = np.ones((4, 512), np.float32)
    try:

        async def ask() -> None:
            asked = [submit(pool, row) for row in rows[:3]]
            assert all(isinstance(one, Pending) for one in asked)
            with pytest.raises(OverloadedError):
                submit(pool, rows[3])
            assert len({decoded(await one).tobytes() for one in asked}) == 1

        asyncio.run(ask())
    finally:
        pool.close()


@leaves_nothing
def test_answers_larger_than_was_thought_are_fetched_once_and_the_memory_given_back() -> None:
    def widen(tensors: Any) -> Any:
        return {"y": np.repeat(tensors["x"], 1500, axis=1)}

    pool = learnt(widen)
    try:
        fetched: list[int] = []
        enlarge = pool._placement.enlarge
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool._placement, "enlarge", lambda *args: (fetched.append(args[1]), enlarge(*args)))
            for turn in range(3):
                fetched.clear()
                answers = asyncio.run(together(pool, pairs(50)))
                assert bool(fetched) == (turn == 0)
                for row, answer in zip(pairs(50), answers, strict=True):
                    assert np.array_equal(answer, np.repeat(row, 1500))
        answers.clear()
        del answer
        wait_until(lambda: pool._arena.used_bytes == 0)
    finally:
        pool.close()


@leaves_nothing
def test_a_loop_that_ends_while_its_requests_are_under_way_leaves_nothing() -> None:
    def dawdle(tensors: Any) -> Any:
        time.sleep(0.3 * float(tensors["x"].any()))
        return {"y": tensors["x"]}

    pool = learnt(dawdle)

    async def leave() -> None:
        for row in pairs(20):
            submit(pool, row)
        await asyncio.sleep(0)  # they are sent

    try:
        asyncio.run(leave())
        wait_until(lambda: pool.status().inflight == 0)
        wait_until(lambda: pool._arena.used_bytes == 0)
    finally:
        pool.close()
