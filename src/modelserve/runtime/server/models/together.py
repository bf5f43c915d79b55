"""Small requests that come while others are under way go to the workers together, as one.

 turn of the loop:  a(1)  b(1)  c(2)      ──► one request of 4 rows ──► rows 0 │ 1 │ 2,3 ──► a  b  c
 nobody under way:  a(1)                  ──► at once, alone

A hop to a worker and back costs more than a quick model does, so it is shared by what arrived in one turn of the loop.
Nobody waits for company: what is joined had arrived already. Where the joined request fails, each is asked by itself,
so that only the culprit fails.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import numpy as np

from modelserve import wire
from modelserve.errors import DeadlineError, DeploymentClosedError, ModelServeError, OverloadedError
from modelserve.runtime.batcher import usual
from modelserve.runtime.pool import WorkerPool
from modelserve.runtime.server.formats.question import Question
from modelserve.runtime.server.http.drive import Drive
from modelserve.tensors import Array

_MOST_ROWS = 64
_SMALL_BYTES = 16 << 10
# A slower model keeps its requests apart: there the workers share them out better than one large request would be.
_QUICK_NS = 2_000_000
# What says nothing about the request itself.
_FOR_ALL = (OverloadedError, DeploymentClosedError, DeadlineError)

Arrays = dict[str, Array]


class _Waiting(NamedTuple):
    question: Question
    answer: asyncio.Future[Arrays | ModelServeError]


class Together:
    """Asks a pool. Lives in one event loop.

    Args:
        may_join: Whether an answer's row depends on that row of the request only.
    """

    def __init__(self, pool: WorkerPool, *, may_join: bool) -> None:
        self._pool = pool
        self.may_join = may_join
        self._under_way = 0
        self._usual_ns = 0.0
        self._gathered: dict[Any, list[_Waiting]] = {}

    async def ask(self, question: Question) -> Arrays:
        """The answer's tensors by name.

        Raises:
            ModelServeError: there is none.
        """
        if not self._joins(question):
            return await self._submit(question.message, question.rows, question.timeout_s)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(question, loop.create_future())
        key = _key(question)
        gathered = self._gathered.get(key)
        if gathered is None:
            self._gathered[key] = [waiting]
            loop.call_soon(self._send, key)
        else:
            gathered.append(waiting)
        answer = await waiting.answer
        if isinstance(answer, ModelServeError):
            raise answer
        return answer

    def _joins(self, question: Question) -> bool:
        return (
            self.may_join
            and self._under_way > 0
            and 0 < self._usual_ns < _QUICK_NS
            and question.timeout_s is None
            and question.message.size_bytes <= _SMALL_BYTES
        )

    async def _submit(self, message: wire.Message, rows: int, timeout_s: float | None) -> Arrays:
        start_ns = time.monotonic_ns()
        self._under_way += 1
        try:
            reply = await self._pool.submit(message, rows, timeout_s)
        finally:
            self._under_way -= 1
        elapsed_ns = time.monotonic_ns() - start_ns
        self._usual_ns = usual(self._usual_ns, elapsed_ns) if self._usual_ns else float(elapsed_ns)
        return wire.decode(wire.reply_layout(reply.header), reply.body)

    def _send(self, key: Any) -> None:
        gathered, rows = self._gathered.pop(key), 0
        group: list[_Waiting] = []
        for waiting in gathered:
            if group and rows + waiting.question.rows > _MOST_ROWS:
                Drive(self._answer(group), _done)
                group, rows = [], 0
            group.append(waiting)
            rows += waiting.question.rows
        Drive(self._answer(group), _done)

    async def _answer(self, group: list[_Waiting]) -> None:
        try:
            if len(group) == 1:
                question = group[0].question
                _settle(group[0], await self._submit(question.message, question.rows, None))
            else:
                await self._answer_joined(group)
        except _FOR_ALL as error:
            for waiting in group:
                _settle(waiting, error)
        except ModelServeError as error:
            if len(group) == 1:
                _settle(group[0], error)
                return
            for waiting in group:
                Drive(self._answer([waiting]), _done)
        except Exception as error:  # noqa: BLE001  # nobody may be left waiting, whatever went wrong here
            for waiting in group:
                _settle(waiting, ModelServeError(f"The server failed: {type(error).__name__}: {error}"))

    async def _answer_joined(self, group: list[_Waiting]) -> None:
        questions = [waiting.question for waiting in group]
        names = questions[0].tensors
        joined = {name: np.concatenate([question.tensors[name] for question in questions]) for name in names}
        rows = sum(question.rows for question in questions)
        arrays = await self._submit(wire.encode_request(joined, questions[0].outputs), rows, None)
        if any(not array.ndim or array.shape[0] != rows for array in arrays.values()):
            raise ModelServeError(f"The model gave no row for each of {rows} rows.")
        start = 0
        for waiting in group:
            end = start + waiting.question.rows
            _settle(waiting, {name: array[start:end] for name, array in arrays.items()})
            start = end


def _key(question: Question) -> Any:
    """Equal for questions whose tensors differ in nothing but their rows."""
    tensors = question.tensors.items()
    return question.outputs, tuple([(name, array.dtype, array.shape[1:]) for name, array in tensors])


def _settle(waiting: _Waiting, answer: Arrays | ModelServeError) -> None:
    # As a result even where it is an error: whoever has gone away does not retrieve one.
    if not waiting.answer.done():
        waiting.answer.set_result(answer)


def _done(_: None) -> None:
    """What was to be done is done: each has its own answer."""
