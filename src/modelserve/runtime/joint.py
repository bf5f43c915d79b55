"""Several requests in one block of shared memory, and what each of them gets of the answer.

    ┌ header ┬ rows of share 0 ┬ rows of share 1 ┬ … ┬ room for the answer ┐

A joint request that is refused, or that a worker dies of, is taken apart: its shares are sent one by one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple

from modelserve.errors import (
    DeadlineError,
    DeploymentClosedError,
    ModelChangedError,
    ModelServeError,
    WorkerStartError,
)
from modelserve.runtime.channel import COUNT_SHIFT
from modelserve.runtime.joining import divided, joint_header
from modelserve.runtime.pending import Pending
from modelserve.runtime.placement import aligned, deadline_ns
from modelserve.wire import Layout, Message, Reply

if TYPE_CHECKING:
    from modelserve.runtime.crew import Crew
    from modelserve.runtime.gathering import Gathering

# By so much the header of a joint request may be longer than that of one.
_LONGER_BYTES = 64
# The least room for an answer: errors fit, and most answers.
_REPLY_BYTES = 16 << 10
# Who asked alone would get no answer either.
_FOR_ALL = (DeadlineError, DeploymentClosedError, WorkerStartError)


class Kind(NamedTuple):
    """What requests have in common that go together."""

    loop: asyncio.AbstractEventLoop
    header: bytes
    timeout_s: float
    digest: str | None


class Share:
    """One request of a joint one. Waited for as a `Pending` is, and with the same errors."""

    __slots__ = ("_answered_by", "_joint", "_place")

    def __init__(self, joint: Joint, place: int) -> None:
        self._joint = joint
        self._place = place
        self._answered_by: Pending = joint

    @property
    def began_ns(self) -> int:
        return self._answered_by.began_ns

    @property
    def computed_ns(self) -> int:
        return self._answered_by.computed_ns

    @property
    def joined(self) -> int:
        return self._answered_by.joined

    def done(self) -> bool:
        return self._joint.answered

    def result(self) -> Reply:
        """Wait for the answer, in this thread."""
        joint = self._joint
        joint.wait()
        reply = joint.reply(self._place)
        if reply is not None:
            return reply
        self._answered_by = again = joint.alone(self._place)
        return again.result()

    def __await__(self) -> Generator[object, None, Reply]:
        joint = self._joint
        if not joint.is_handed_out:
            yield from joint.waiter(self._place)
        reply = joint.reply(self._place)
        if reply is not None:
            return reply
        self._answered_by = again = joint.alone(self._place)
        return (yield from again.__await__())


class Joint(Pending):
    """Several requests in one block; open for more until it is sealed.

    Args:
        block: The block's offset and class; as large as `Joint.block_bytes` says, or larger.
        most: How many it has room for.
    """

    def __init__(
        self, gathering: Gathering, kind: Kind, layout: Layout, crew: Crew, block: tuple[int, int], most: int
    ) -> None:
        placement = gathering.placement
        self._body_at = block[0] + aligned(len(kind.header) + _LONGER_BYTES)
        entry = [placement.ticket(), 0, 0, 0, 0, 0, 0, deadline_ns(kind.timeout_s)]
        super().__init__(placement.arena, placement.listener, entry, [block], 0, kind.timeout_s)
        self.kind = kind
        self.crew = crew
        self.count = 0
        #: How many of them stand in its dispatcher's count beside itself.
        self.gathered = 0
        self.is_handed_out = False
        self._gathering = gathering
        self.bytes_each = layout.body_bytes
        self._rows_each = layout.rows
        self._most = most
        self._waiters: list[asyncio.Future[None] | None] = []
        self._replies: list[Reply] = []
        self._inputs = b""
        self._failure: ModelServeError | None = None

    @staticmethod
    def block_bytes(header: bytes, most: int, bytes_each: int) -> int:
        """Bytes of a block for up to `most` requests of this header, each with its answer of `bytes_each`."""
        return aligned(len(header) + _LONGER_BYTES) + most * bytes_each + _REPLY_BYTES

    # While it is open.

    def add(self, body: memoryview) -> Share:
        """Write one more request behind the others."""
        place, size = self.count, self.bytes_each
        at = self._body_at + place * size
        self._arena.view[at : at + size] = body
        self._waiters.append(None)
        self.count = place + 1
        self.rows += self._rows_each
        self.gathered += place > 0
        self.crew.dispatcher.gathered += place > 0
        return Share(self, place)

    @property
    def is_full(self) -> bool:
        return self.count == self._most

    def seal(self) -> None:
        """No more are added: write the header that announces them all."""
        header = joint_header(self.kind.header, self.count)
        body_at, body_bytes, (offset, kind) = self._body_at, self.count * self.bytes_each, self._blocks[0]
        start, reply_at = body_at - aligned(len(header)), aligned(body_at + body_bytes)
        self._arena.view[start : start + len(header)] = header
        room = offset + (1 << kind) - reply_at
        self.entry[1:7] = start, len(header), body_bytes, reply_at, room, self.count << COUNT_SHIFT

    # What the shares do.

    def waiter(self, place: int) -> asyncio.Future[None]:
        """Done when the answer is there."""
        self._waiters[place] = waiter = self.kind.loop.create_future()
        return waiter

    def wait(self) -> None:
        """Wait in this thread until the answer is there."""
        self._gathering.send(self)
        if not self.answered:
            self._listener.wait(self)
        self._divide()

    def reply(self, place: int) -> Reply | None:
        """A share's answer; None where it has to be asked for alone."""
        if self._failure is None:
            return self._replies[place]
        if self._inputs:
            return None
        raise self._failure

    def alone(self, place: int) -> Pending:
        """Send a share by itself."""
        size, kind = self.bytes_each, self.kind
        left_s = (self.deadline_ns - time.monotonic_ns()) / 1e9
        if left_s <= 0:
            raise self._late()
        message = Message(kind.header, (memoryview(self._inputs)[place * size : (place + 1) * size],))
        return self._gathering.sender.submit_alone(message, self._rows_each, left_s, kind.digest)

    # What the pool does.

    def settle(self, status: int, header_bytes: int, body_bytes: int) -> None:
        super().settle(status, header_bytes, body_bytes)
        self._gathering.leave(self)

    def fail(self, error: ModelServeError) -> None:
        super().fail(error)
        self._gathering.leave(self)

    def notify(self, here: asyncio.AbstractEventLoop | None) -> None:
        self.unpark()
        loop = self.kind.loop
        if loop is here:
            self.hand_out()
            return
        try:
            loop.call_soon_threadsafe(self.hand_out)
        except RuntimeError:  # that loop was closed: nobody waits any more
            self._divide()

    def hand_out(self) -> None:
        """Wake the shares' tasks, in their loop."""
        self._divide()
        self.is_handed_out = True
        for waiter in self._waiters:
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _divide(self) -> None:
        """Find each share's part of the answer, or keep what is needed to ask for it alone."""
        with self._gathering.lock:
            if self._replies or self._failure is not None:
                return
            inputs = bytes(self._arena.view[self._body_at : self._body_at + self.entry[3]])
            try:
                reply = self._take()
                self._replies = divided(reply, self.count)
                self._gathering.learn(self.kind, -(-reply.body.nbytes // self.count))
            except ModelServeError as error:
                self._failure = error
                if isinstance(error, ModelChangedError) or (self.count > 1 and not isinstance(error, _FOR_ALL)):
                    self._inputs = inputs
