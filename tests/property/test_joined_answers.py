"""Whoever asks at once, each gets the answer to its own question."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelserve import wire
from modelserve.bundle import LiveCallable
from modelserve.errors import ModelRunError, ModelServeError, WireError
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.session import Session
from modelserve.tensors import Array, Signature, TensorSpec
from modelserve.testing import models


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELSERVE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def linear(home: None) -> Iterator[tuple[WorkerPool, Session]]:
    bundle = models.linear()
    pool = WorkerPool(bundle, workers=2)
    yield pool, Session(bundle)
    pool.close()


@pytest.fixture(scope="module")
def picky(home: None) -> Iterator[WorkerPool]:
    pool = WorkerPool(models.picky(), workers=1)
    yield pool
    pool.close()


def decoded(reply: wire.Reply) -> Array:
    return next(iter(wire.decode(wire.reply_layout(reply.header), reply.body).values()))


async def ask_all(
    pool: WorkerPool, name: str, inputs: list[Array], refusal: type[ModelServeError] = ModelRunError
) -> list[Array | ModelServeError]:
    async def ask(array: Array) -> Array | ModelServeError:
        try:
            reply = await pool.submit(wire.encode_request({name: array}), len(array))
        except refusal as error:
            return error
        return decoded(reply)

    return await asyncio.gather(*map(ask, inputs))


@settings(max_examples=25)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=120), st.integers(0, 2**32 - 1))
def test_answers_are_never_mixed_up(linear: tuple[WorkerPool, Session], sizes: list[int], seed: int) -> None:
    pool, session = linear
    random = np.random.default_rng(seed)
    inputs = [random.normal(size=(rows, 4)).astype(np.float32) for rows in sizes]
    for given_rows, answer in zip(inputs, asyncio.run(ask_all(pool, "x", inputs)), strict=True):
        assert not isinstance(answer, ModelRunError)
        np.testing.assert_allclose(answer, session.run({"x": given_rows})["y"], rtol=1e-5, atol=1e-6)


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(-2, 6), min_size=1, max_size=3), min_size=1, max_size=60))
def test_only_the_request_that_the_model_refuses_fails(picky: WorkerPool, indexes: list[list[int]]) -> None:
    inputs = [np.array(index, np.int64) for index in indexes]
    for index, answer in zip(indexes, asyncio.run(ask_all(picky, "index", inputs)), strict=True):
        # Gather takes -4 to 3; the table is 0, 1, 2, 3.
        if all(-4 <= place < 4 for place in index):
            assert not isinstance(answer, ModelRunError)
            assert answer.tolist() == [float(place % 4) for place in index]
        else:
            assert isinstance(answer, ModelRunError)


@pytest.fixture(scope="module")
def dear_when_large(home: None) -> Iterator[WorkerPool]:
    """A callable for which a row costs the more, the more there are; its second column says how many ran together."""

    def run(tensors: dict[str, Array]) -> dict[str, Array]:
        import time

        x = tensors["x"]
        if (x < 0).any():
            raise ValueError("negative")
        time.sleep(1e-4 + 1e-6 * len(x) ** 1.5)
        return {"y": np.stack([x[:, 0], np.full(len(x), len(x), np.float32)], axis=1)}

    run.__module__ = "__main__"  # by value: workers do not have this module
    both = TensorSpec("x", "float32", ("batch", 2)), TensorSpec("y", "float32", ("batch", 2))
    signature = Signature((both[0],), (both[1],))
    pool = WorkerPool(LiveCallable(cloudpickle.dumps(run), signature, "A test.", rows_independent=True), workers=1)
    for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256) * 4:  # what it learns its curve from
        together(pool, np.zeros((rows, 2), np.float32))
    yield pool
    pool.close()


def together(pool: WorkerPool, x: Array) -> tuple[Array, set[int]]:
    """The answers' first column, and the numbers of rows that ran at once."""
    answer = decoded(pool.submit(wire.encode_request({"x": x}), len(x)).result())
    return answer[:, 0], set(answer[:, 1].astype(int).tolist())


def test_a_large_request_that_is_dear_as_a_whole_runs_in_slices_and_in_order(dear_when_large: WorkerPool) -> None:
    x = np.random.default_rng(0).random(size=(2_001, 2)).astype(np.float32)
    for _ in range(6):
        answer, sizes = together(dear_when_large, x)
        assert np.array_equal(answer, x[:, 0])
    assert max(sizes) < 500, "It ran whole."


def test_a_request_of_which_one_slice_is_refused_fails_as_a_whole(dear_when_large: WorkerPool) -> None:
    x = np.ones((2_000, 2), np.float32)
    for _ in range(4):
        together(dear_when_large, x)
    bad = x.copy()
    bad[-1] = -1
    with pytest.raises(ModelRunError, match="negative"):
        together(dear_when_large, bad)
    assert together(dear_when_large, x)[0].tolist() == [1.0] * 2_000


def test_an_answer_that_cannot_travel_fails_its_own_request_only(home: None) -> None:
    def run(tensors: dict[str, Array]) -> dict[str, Array]:
        return {"y": np.array([None if x < 0 else f"{x:g}" for x in tensors["x"][:, 0]], object)}

    run.__module__ = "__main__"  # by value: workers do not have this module
    signature = Signature((TensorSpec("x", "float32", ("batch", 1)),), (TensorSpec("y", "string", ("batch",)),))
    pool = WorkerPool(LiveCallable(cloudpickle.dumps(run), signature, "A test.", rows_independent=True), workers=1)
    try:
        for rows in (1, 2, 4, 8, 16, 32, 64) * 4:  # what it learns from that joining pays
            pool.submit(wire.encode_request({"x": np.ones((rows, 1), np.float32)}), rows).result()
        inputs = [np.array([[-1 if number == 40 else number]], np.float32) for number in range(60)]
        answers = asyncio.run(ask_all(pool, "x", inputs, WireError))
        assert [number for number, answer in enumerate(answers) if isinstance(answer, WireError)] == [40]
        assert all(answer.tolist() == [f"{number}"] for number, answer in enumerate(answers) if number != 40)
    finally:
        pool.close()


def test_large_answers_stay_valid_after_the_pool_is_closed(home: None) -> None:
    bundle = models.linear()
    pool = WorkerPool(bundle, workers=1)
    x = np.random.default_rng(0).normal(size=(100_000, 4)).astype(np.float32)
    replies = [pool.submit(wire.encode_request({"x": x}), len(x)).result() for _ in range(3)]
    answers = [wire.decode(wire.reply_layout(reply.header), reply.body)["y"] for reply in replies]
    del replies
    pool.close()
    expected = Session(bundle).run({"x": x})["y"]
    for answer in answers:
        assert np.array_equal(answer, expected)
    answers[0][:] = 0  # an answer's memory is its holder's own
    assert np.array_equal(answers[1], expected)


@pytest.mark.parametrize(("latency_budget_s", "runs"), [(0.0, 6), (5.0, 1)])
def test_with_a_budget_a_busy_worker_waits_for_as_many_as_came_lately(
    home: None, latency_budget_s: float, runs: int
) -> None:
    pool = WorkerPool(models.linear(), workers=1, settings=PoolSettings(latency_budget_s=latency_budget_s))
    try:
        pool.submit(wire.encode_request({"x": np.ones((6, 4), np.float32)}), 6).result()
        before = pool.status().workers[0].runs
        pending = []
        for number in range(6):
            pending.append(pool.submit(wire.encode_request({"x": np.full((1, 4), number, np.float32)}), 1))
            threading.Event().wait(0.02)  # long enough for a run of each, if each ran alone
        session = Session(models.linear())
        for number, one in enumerate(pending):
            answer = decoded(one.result())
            assert np.allclose(answer, session.run({"x": np.full((1, 4), number, np.float32)})["y"], atol=1e-6)
        assert pool.status().workers[0].runs - before == runs
    finally:
        pool.close()
