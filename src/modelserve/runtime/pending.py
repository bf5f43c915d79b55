"""An answer to come: waited for by a thread, awaited by a task, or dropped."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import weakref
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from modelserve import wire
from modelserve.errors import DeadlineError, ModelServeError
from modelserve.runtime.channel import EXPIRED, FAILED, body_offset
from modelserve.wire import Reply

if TYPE_CHECKING:
    from modelserve.runtime.listener import Listener
    from modelserve.runtime.memory import Arena

#: Replies up to this size are copied out; larger ones are lent: arrays lie in the shared memory until they are gone.
LENT_FROM_BYTES = 64 << 10


class Pending:
    """One request from `submit` until its answer is taken.

    The block in shared memory belongs to this object until the answer is taken or lent; it is given back exactly
    once, also when nobody ever asks for the answer.
    """

    # What most requests never change stands here once: an object is made for each of some ten thousand a second.
    answered = False
    lonely_deaths = 0
    #: When the run that answered it began, and when that had its first answer (monotonic clock); 0 without a run.
    began_ns = 0
    computed_ns = 0
    #: How many requests that run answered.
    joined = 0
    #: How many requests of callers this is.
    count = 1
    lane: Any = None
    _status = -1
    _header_bytes = 0
    _body_bytes = 0
    _error: ModelServeError | None = None
    _parked: threading.Lock | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _task_waiter: asyncio.Future[None] | None = None

    def __init__(
        self,
        arena: Arena,
        listener: Listener,
        entry: list[int],
        blocks: list[tuple[int, int]],
        rows: int,
        timeout_s: float,
    ) -> None:
        self.entry = entry  # a Submission's numbers, changed when the request is run again
        self.rows = rows
        self.timeout_s = timeout_s
        self._arena = arena
        self._listener = listener
        self._blocks = blocks

    @property
    def deadline_ns(self) -> int:
        """On the monotonic clock."""
        return self.entry[7]

    # What the caller does.

    def done(self) -> bool:
        return self.answered

    def result(self) -> Reply:
        """Wait for the answer, in this thread.

        Raises:
            ModelServeError: there is none; `DeadlineError` when it did not come in time.
        """
        if not self.answered:
            self._listener.wait(self)
        return self._take()

    def __await__(self) -> Generator[Any, None, Reply]:
        if not self.answered:
            loop = asyncio.get_running_loop()
            self._loop = loop
            self._task_waiter = waiter = loop.create_future()
            self._listener.attend_to(self, loop)
            if not self.answered:
                yield from waiter
        return self._take()

    # What the pool does.

    def park(self) -> threading.Lock:
        """The lock that opens when the answer is there (or when this waiter is to lead)."""
        if self._parked is None:
            self._parked = threading.Lock()
            self._parked.acquire()
        return self._parked

    def unpark(self) -> None:
        parked = self._parked
        if parked is not None:
            with contextlib.suppress(RuntimeError):  # open already: another thread was quicker
                parked.release()

    def settle(self, status: int, header_bytes: int, body_bytes: int) -> None:
        """Note where the answer lies. Wake the waiter with `notify` afterwards."""
        self._status = status
        self._header_bytes = header_bytes
        self._body_bytes = body_bytes
        self.answered = True

    def fail(self, error: ModelServeError) -> None:
        """Note that there will be no answer."""
        self._error = error
        self.answered = True

    def notify(self, here: asyncio.AbstractEventLoop | None) -> None:
        """Wake the waiter; `here` is the loop that runs in the calling thread, if one does."""
        if self._parked is not None:
            self.unpark()
        waiter = self._task_waiter
        if waiter is None:
            return
        if self._loop is here:
            _resolve(waiter)
        else:
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # that loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, waiter)

    def expire(self) -> None:
        """Give up waiting. The block stays taken until the worker is through with it."""
        self.fail(self._late())

    def use_block(self, offset: int, kind: int, capacity: int) -> None:
        """Have the answer written to another block, as large as it needs."""
        self._blocks.append((offset, kind))
        self.entry[4], self.entry[5] = offset, capacity

    def release(self) -> None:
        """Give the blocks back; later calls do nothing."""
        blocks, self._blocks = self._blocks, []
        for offset, kind in blocks:
            self._arena.give_back(offset, kind)

    def __del__(self) -> None:
        # Only blocks that no worker can still touch: an unanswered request keeps its place in the pool's table.
        if self._blocks:
            self.release()

    def _take(self) -> Reply:
        if self._error is not None:
            if self._status >= 0:
                self.release()
            raise self._error
        start, view = self.entry[4], self._arena.view
        if self._status == EXPIRED:
            self.release()
            raise self._late()
        if self._status == FAILED:
            error = wire.decode_error(view[start : start + self._header_bytes])
            self.release()
            raise error
        header = bytes(view[start : start + self._header_bytes])
        body_at = body_offset(start, self._header_bytes)
        if self._body_bytes < LENT_FROM_BYTES:
            body = memoryview(bytearray(view[body_at : body_at + self._body_bytes]))
            self.release()
        else:
            body = self._lend(body_at)
        return Reply(header, body)

    def _lend(self, body_at: int) -> memoryview:
        """The answer where it lies; its block goes back when the last array that looks at it is gone."""
        lent = (ctypes.c_ubyte * self._body_bytes).from_buffer(self._arena.mapping, body_at)
        blocks, self._blocks = self._blocks, []
        weakref.finalize(lent, _give_back, self._arena, blocks).atexit = False
        return memoryview(lent).cast("B")

    def _late(self) -> DeadlineError:
        return DeadlineError(
            f"No answer within {self.timeout_s:g} s. Give a longer timeout_s, or scale to more workers."
        )


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _give_back(arena: Arena, blocks: list[tuple[int, int]]) -> None:
    for offset, kind in blocks:
        arena.give_back(offset, kind)
