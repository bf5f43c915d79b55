"""How a task waits: alone it looks for its answer, in company it is rung for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from modelserve import wire
from modelserve.runtime import WorkerPool
from modelserve.runtime.pending import Pending
from modelserve.testing import models

REQUEST = wire.encode_request({"x": np.ones((1, 4), np.float32)})
TIMES = 64


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(models.linear(), workers=1)
    yield pool
    pool.close()


def test_a_lone_task_looks_for_its_answer_and_is_hardly_ever_rung_for(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung_for: list[Pending] = []
    waiting: list[Pending] = []
    hear = pool._listener._hear

    def heard(loop: asyncio.AbstractEventLoop) -> None:
        before = [one for one in waiting if not one.answered]
        hear(loop)
        rung_for.extend(one for one in before if one.answered)

    monkeypatch.setattr(pool._listener, "_hear", heard)
    monkeypatch.setattr(pool._listener, "_spin_ns", lambda pending: 200_000)
    monkeypatch.setattr("modelserve.runtime.listener.time.perf_counter_ns", lambda: 0)  # as long as it takes

    async def ask() -> None:
        for _ in range(TIMES):
            asked = pool.submit(REQUEST, 1)
            assert isinstance(asked, Pending)
            waiting.append(asked)
            await asked

    asyncio.run(ask())
    # One that comes just while another is asked may find its answer.
    assert len(rung_for) < TIMES / 2


def test_a_task_that_gets_company_before_it_looks_sleeps(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets_ns: list[int] = []

    # However slow this machine is, a lone one would look.
    monkeypatch.setattr("modelserve.runtime.pool._LONGEST_SPIN_NS", 1 << 60)
    monkeypatch.setattr(pool._roster, "cores", 2)
    monkeypatch.setattr(pool._listener, "_spin", lambda pending, budget_ns, here: budgets_ns.append(budget_ns))

    async def one() -> None:
        await pool.submit(REQUEST, 1)

    async def together() -> None:
        await asyncio.gather(*(one() for _ in range(TIMES)))

    asyncio.run(together())
    assert budgets_ns == [0]  # the first one is alone until the others ask
