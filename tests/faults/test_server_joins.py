"""Requests that arrive together share a way to the workers, and nothing else: not an error, not a row, not a death."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from modelserve.bundle import Bundle
from modelserve.errors import ModelRunError, ModelServeError, OverloadedError
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.runtime.server.formats.question import Question, question
from modelserve.runtime.server.http.messages import Response
from modelserve.runtime.server.models import together as together_module
from modelserve.runtime.server.models.together import Together
from modelserve.session import Session
from modelserve.testing import models


@pytest.fixture
def linear() -> Iterator[WorkerPool]:
    pool = WorkerPool(models.linear(), workers=2)
    yield pool
    pool.close(drain_s=0)


def ask(bundle: Bundle, rows: np.ndarray, outputs: tuple[str, ...] = ()) -> Question:
    return question(bundle.signature.check(rows), outputs, lambda arrays: Response())


async def all_at_once(together: Together, questions: list[Question]) -> list[object]:
    """What each is answered; the first few teach `together` that the model is quick."""
    for one in questions[:3]:
        await asyncio.gather(together.ask(one), return_exceptions=True)
    return await asyncio.gather(*(together.ask(one) for one in questions), return_exceptions=True)


def test_each_has_its_own_rows_whatever_their_number(linear: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together_module, "_QUICK_NS", 1e12)  # however slow this machine is at this moment
    bundle, random = models.linear(), np.random.default_rng(0)
    inputs = [random.normal(size=(1 + number % 5, 4)).astype(np.float32) for number in range(300)]
    sent: list[int] = []
    submit = linear.submit
    monkeypatch.setattr(
        linear, "submit", lambda message, rows, timeout: sent.append(rows) or submit(message, rows, timeout)
    )
    together = Together(linear, may_join=True)
    answers = asyncio.run(all_at_once(together, [ask(bundle, rows) for rows in inputs]))
    session = Session(bundle)
    for rows, answer in zip(inputs, answers, strict=True):
        assert isinstance(answer, dict)
        np.testing.assert_allclose(answer["y"], session.run({"x": rows})["y"], rtol=1e-4, atol=1e-5)
    assert len(sent) < len(inputs) / 4
    assert max(sent) <= 64


def test_those_who_ask_for_different_things_are_not_joined(linear: WorkerPool) -> None:
    bundle = models.mlp()
    pool = WorkerPool(bundle, workers=1)
    rows = np.ones((1, 8), np.float32)
    wanted = [(), ("label",), ("probabilities",), ("probabilities", "label")] * 20
    try:
        answers = asyncio.run(
            all_at_once(Together(pool, may_join=True), [ask(bundle, rows, names) for names in wanted])
        )
    finally:
        pool.close(drain_s=0)
    for names, answer in zip(wanted, answers, strict=True):
        assert tuple(answer) == (names or ("label",))  # type: ignore[arg-type]


def test_a_model_that_looks_at_all_rows_is_asked_one_by_one() -> None:
    bundle = models.joint()
    pool = WorkerPool(bundle, workers=1)
    inputs = [np.full((2, 2), number, np.float32) for number in range(40)]
    try:
        together = Together(pool, may_join=bundle.rows_independent)
        answers = asyncio.run(all_at_once(together, [ask(bundle, rows) for rows in inputs]))
    finally:
        pool.close(drain_s=0)
    assert all(not answer["y"].any() for answer in answers)  # type: ignore[index,call-overload]


def test_only_the_culprit_fails() -> None:
    bundle = models.picky()
    pool = WorkerPool(bundle, workers=1)
    inputs = [np.array([99 if number % 10 == 7 else number % 3]) for number in range(100)]
    try:
        answers = asyncio.run(all_at_once(Together(pool, may_join=True), [ask(bundle, rows) for rows in inputs]))
    finally:
        pool.close(drain_s=0)
    for number, answer in enumerate(answers):
        assert isinstance(answer, ModelRunError if number % 10 == 7 else dict), (number, answer)


def test_a_killed_worker_costs_none_of_them(linear: WorkerPool) -> None:
    bundle = models.linear()
    together = Together(linear, may_join=True)
    rows = np.ones((1, 4), np.float32)

    async def story() -> list[object]:
        found: list[object] = []
        for turn in range(40):
            if turn % 10 == 5:
                pid = next(worker.pid for worker in linear.status().workers if worker.pid)
                os.kill(pid, signal.SIGKILL)
            found += await all_at_once(together, [ask(bundle, rows)] * 20)
        return found

    assert all(isinstance(answer, dict) for answer in asyncio.run(story()))


def test_overload_and_closing_are_told_to_each() -> None:
    bundle = models.linear()
    pool = WorkerPool(bundle, workers=1, settings=PoolSettings(max_inflight=1))
    together = Together(pool, may_join=True)
    questions = [ask(bundle, np.ones((1, 4), np.float32))] * 200

    async def story() -> list[object]:
        found = await all_at_once(together, questions)
        pool.close(drain_s=0)
        return found + await all_at_once(together, questions)

    answers = asyncio.run(story())
    kinds = {type(answer) for answer in answers[:200]}
    assert kinds <= {dict, OverloadedError}
    assert all(isinstance(answer, ModelServeError) for answer in answers[200:])


def test_whoever_goes_away_leaves_the_others_their_answers(linear: WorkerPool) -> None:
    bundle, together = models.linear(), Together(linear, may_join=True)
    one = ask(bundle, np.ones((1, 4), np.float32))

    async def story() -> list[object]:
        await all_at_once(together, [one] * 3)
        tasks = [asyncio.ensure_future(together.ask(one)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(story())
    assert all(isinstance(answer, dict) for answer in answers[1::2])
