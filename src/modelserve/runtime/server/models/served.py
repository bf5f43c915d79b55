"""One version of one model, with its workers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from modelserve.bundle import Bundle
from modelserve.errors import ModelChangedError, ModelServeError
from modelserve.runtime.pool import WorkerPool
from modelserve.runtime.server.formats.question import Question
from modelserve.runtime.server.http.messages import Request
from modelserve.runtime.server.models.sizing import DEFAULT_TARGET_INFLIGHT, Sizing
from modelserve.runtime.server.models.statistics import Statistics, Timing
from modelserve.runtime.settings import PoolSettings, PoolStatus
from modelserve.tensors import Signature

T = TypeVar("T")
_FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Face:
    """What a format has to know of a model to read a question; another one after the model was updated."""

    name: str
    version: str
    signature: Signature
    digest: str


class ServedModel:
    """A loaded model that answers.

    Attributes:
        loaded_s: Seconds that loading took, until every worker had answered a warm-up.
        sizing: What was asked of it since it was loaded; None for the server's own number of workers.
        inflight: Questions that are being answered.
        used_at: When the last question came, on the monotonic clock.
    """

    def __init__(self, name: str, version: str, bundle: Bundle, pool: WorkerPool, loaded_s: float) -> None:
        self.name = name
        self.version = version
        self.bundle = bundle
        self.face = Face(name, version, bundle.signature, bundle.digest)
        self.pool = pool
        self.loaded_s = loaded_s
        self.sizing: Sizing | None = None
        self.statistics = Statistics()
        self.inflight = 0
        self.used_at = time.monotonic()
        self._status: tuple[float, PoolStatus] | None = None

    @classmethod
    def load(cls, name: str, version: str, bundle: Bundle, workers: int, settings: PoolSettings) -> ServedModel:
        """Start the workers; returns when each of them has answered a warm-up. Blocks.

        Raises:
            ModelServeError: the model cannot be loaded.
        """
        start = time.monotonic()
        pool = WorkerPool(bundle, workers=workers, settings=settings)
        return cls(name, version, bundle, pool, time.monotonic() - start)

    @property
    def signature(self) -> Signature:
        return self.face.signature

    async def ask(self, read: Callable[[Face], Question[T] | Awaitable[Question[T]]], request: Request) -> T:
        """The answer to the question that `read` finds, written as it wants it. The request is told its timing.

        Where the model is updated before the workers have the question, it is read again, for the new model: an
        answer never mixes the two.

        Raises:
            ModelServeError: there is none, or no question.
        """
        while True:
            face = self.face
            found = read(face)
            question = found if isinstance(found, Question) else await found
            start = time.monotonic_ns()
            self.inflight += 1
            try:
                pending = self.pool.submit(question.message, question.rows, question.timeout_s, digest=face.digest)
                reply = await pending
                break
            except ModelChangedError:
                if face is self.face:
                    raise
            except ModelServeError as error:
                self.statistics.failure(error.code, time.monotonic_ns() - start)
                raise
            finally:
                self.inflight -= 1
                self.used_at = time.monotonic()
        request.timing = timing = Timing(start, pending.began_ns, pending.computed_ns, pending.joined)
        self.statistics.success(question.rows, time.monotonic_ns() - start, timing)
        return question.answer(reply)

    def update(self, bundle: Bundle) -> None:
        """Answer with another bundle from now on. Blocks until its workers are ready.

        Raises:
            ModelServeError: it cannot be loaded; the one before goes on answering.
        """
        face = Face(self.name, self.version, bundle.signature, bundle.digest)

        def switched() -> None:
            self.bundle, self.face = bundle, face

        self.pool.update(bundle, switched=switched)
        self._status = None

    def scale(self, sizing: Sizing) -> None:
        """Have so many workers. Blocks until they are there.

        Raises:
            InvalidScaleError, WorkerStartError: that many cannot be.
        """
        if sizing.is_fixed:
            self.pool.scale(sizing.minimum)
        else:
            target_inflight = sizing.target_inflight or DEFAULT_TARGET_INFLIGHT
            self.pool.autoscale(sizing.minimum, sizing.maximum, target_inflight)
        self.sizing = sizing
        self._status = None

    def status(self) -> PoolStatus:
        """How its workers are, as of a second ago at most: asking costs some milliseconds."""
        now = time.monotonic()
        if self._status is None or now - self._status[0] > _FRESH_S:
            self._status = (now, self.pool.status())
        return self._status[1]

    @property
    def is_ready(self) -> bool:
        """Whether somebody is there to answer (or would come, where none are wanted at rest)."""
        status = self.status()
        return status.failure is None and (status.ready > 0 or status.wanted == 0)

    @property
    def memory_bytes(self) -> int:
        """What its processes take: their own memory, and once what they share."""
        workers = self.status().workers
        own = sum(worker.private_bytes or 0 for worker in workers)
        return own + max((worker.shared_bytes or 0 for worker in workers), default=0)

    def close(self, drain_s: float | None = None) -> None:
        """Let questions under way finish, then end the workers. Blocks."""
        self.pool.close(drain_s=drain_s)
