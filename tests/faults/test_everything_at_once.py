"""Threads and tasks ask while workers are killed, scaled and updated: every answer is right, and none is missing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time

import numpy as np
import pytest

import modelserve as ms
from modelserve.session import Session
from modelserve.testing import models


@pytest.mark.long
def test_threads_and_tasks_are_answered_through_kills_scaling_and_updates() -> None:
    bundle = models.linear()
    rows = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    expected = Session(bundle).run({"x": rows})["y"]
    stop = time.monotonic() + 15
    wrong: list[object] = []
    answered = [0, 0]

    def part(choice: random.Random) -> slice:
        start = choice.randrange(490)
        return slice(start, start + choice.randrange(1, 10))

    def check(answer: np.ndarray, asked: slice, kind: int) -> None:
        answered[kind] += 1
        if not np.allclose(answer, expected[asked], atol=1e-5):
            wrong.append((asked, answer))

    def ask_in_thread(seed: int) -> None:
        choice = random.Random(seed)
        while time.monotonic() < stop:
            asked = part(choice)
            try:
                check(deployment.predict(rows[asked], timeout_s=10), asked, 0)
            except ms.ModelServeError as error:
                wrong.append(error)

    async def ask_in_task(seed: int) -> None:
        choice = random.Random(seed)
        while time.monotonic() < stop:
            asked = part(choice)
            try:
                check(await deployment.apredict(rows[asked], timeout_s=10), asked, 1)
            except ms.ModelServeError as error:
                wrong.append(error)

    async def ask_in_tasks() -> None:
        await asyncio.gather(*(ask_in_task(seed) for seed in range(40)))

    def disturb(choice: random.Random) -> None:
        deed = choice.random()
        if deed < 0.4:
            deployment.scale(choice.choice([1, 2, 3]))
        elif deed < 0.8:
            for replica in deployment.status().replicas[:1]:
                if replica.details["pid"] is not None:
                    os.kill(replica.details["pid"], signal.SIGKILL)
        else:
            deployment.update(models.linear())

    with ms.Model(bundle).serve(workers=2) as deployment:
        callers = [threading.Thread(target=ask_in_thread, args=(seed,)) for seed in range(4)]
        callers += [threading.Thread(target=asyncio.run, args=(ask_in_tasks(),)) for _ in range(2)]
        for caller in callers:
            caller.start()
        choice = random.Random(1)
        while time.monotonic() < stop - 1:
            threading.Event().wait(0.3)
            try:
                disturb(choice)
            except ProcessLookupError:  # it had died already
                continue
        for caller in callers:
            caller.join(30)
        assert not any(caller.is_alive() for caller in callers)
        assert wrong == []
        assert min(answered) > 100
        assert deployment._endpoint._pool._arena.used_bytes == 0
