"""A batch service in this process: a thread answers the lines of a job as the runtime in a cloud's container does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from modelserve import wire
from modelserve.backend import Job, JobState, JobStatus, Servable
from modelserve.errors import DeploymentNotFoundError, ModelServeError
from modelserve.runtime.server.formats import batches
from modelserve.runtime.server.formats.question import Described, Question
from modelserve.session import open_session
from modelserve.tensors import Signature


class Cloud(Protocol):
    """What a job needs of its place: what is to go wrong, what holds it up, and who knows it."""

    jobs: dict[str, MemoryJob]
    gate: threading.Event

    def check(self, verb: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Face:
    """What a format has to know of the model."""

    name: str
    version: str
    signature: Signature
    digest: str


class MemoryJob(Job):
    """Begins at once; waits while the cloud's gate is closed."""

    def __init__(self, name: str, cloud: Cloud, servable: Servable, work: Mapping[int, bytes]) -> None:
        self.name = name
        self._cloud = cloud
        self._servable = servable
        self._work = dict(work)
        self._answers: dict[int, bytes] = {}
        self._status = JobStatus(JobState.RUNNING, "queued")
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name=f"memory-{name}", daemon=True).start()

    def status(self) -> JobStatus:
        self._check_there()
        return self._status

    def lines(self, part: int) -> bytes:
        self._check_there()
        if part not in self._answers:
            raise DeploymentNotFoundError(f"Job {self.name!r} has no part {part}.")
        return self._answers[part]

    def delete(self) -> None:
        self._stopped.set()
        if self._cloud.jobs.get(self.name) is self:
            del self._cloud.jobs[self.name]

    def _run(self) -> None:
        try:
            self._cloud.check("job")
            session = open_session(self._servable)
            face = _Face(self.name, "1", session.signature, self._servable.digest)

            async def ask(read: Callable[[Described], Question[list[bytes]]]) -> list[bytes]:
                question = read(face)
                joined = question.message.join()
                head = len(question.message.header)
                layout = wire.request_layout(joined[:head])
                reply = wire.encode_reply(session.run(wire.decode(layout, memoryview(joined)[head:]), layout.outputs))
                return question.answer(wire.Reply(reply.header, memoryview(b"".join(reply.buffers))))

            for number, lines in self._work.items():
                while not self._cloud.gate.wait(0.05):
                    if self._stopped.is_set():
                        return
                self._status = JobStatus(JobState.RUNNING, f"{len(self._answers)} of {len(self._work)} parts")
                found = asyncio.run(batches.answers(lines.splitlines(), ask))
                # Any order will do, and this one shows whoever relies on another.
                self._answers[number] = b"\n".join(reversed(found))
            self._status = JobStatus(JobState.COMPLETED)
        except ModelServeError as error:
            self._status = JobStatus(JobState.FAILED, "", str(error))

    def _check_there(self) -> None:
        if self._cloud.jobs.get(self.name) is not self:
            raise DeploymentNotFoundError(f"There is no job {self.name!r}.")
