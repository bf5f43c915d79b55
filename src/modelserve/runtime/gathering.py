"""Requests that tasks ask in the same turn of an event loop go to the workers as one.

    apredict ─► Share ┐                                                      ┌─► Share: its rows
    apredict ─► Share ┼─► Joint: one header, rows behind rows ─► worker ─► answer ─► Share: its rows
    apredict ─► Share ┘                                                      └─► Share: its rows

What a request costs this process beside its bytes is then paid once for all. Only requests of which nothing but the
values differs go together, for a model whose rows do not depend on each other, and only while others are under way:
who asks alone is not held back for a turn.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Protocol

from modelserve.errors import ModelServeError, OverloadedError
from modelserve.runtime.joining import joinable
from modelserve.runtime.joint import Joint, Kind, Share
from modelserve.runtime.pending import Pending
from modelserve.wire import Layout, Message

if TYPE_CHECKING:
    from modelserve.runtime.crew import Crew
    from modelserve.runtime.dispatch import Dispatcher
    from modelserve.runtime.placement import Placement

# Larger requests cost so much by themselves that nothing is saved.
_MOST_BYTES = 16 << 10
_BLOCK_BYTES = 256 << 10
# A joint run is not to take longer than this, so that there is something for the other workers, too.
_RUN_NS = 200_000
_KNOWN_REPLIES = 4096


class Sender(Protocol):
    """Where requests go from here."""

    def send(self, pending: Pending, digest: str | None) -> None:
        """Hand a request to the workers of that model."""
        ...

    def submit_alone(self, message: Message, rows: int, timeout_s: float, digest: str | None) -> Pending:
        """Send one as if nothing had been gathered."""
        ...


class Gathering:
    """The joint requests of a pool that are open, at most one of a kind.

    Attributes:
        lock: Held while a joint request is changed.
    """

    def __init__(self, placement: Placement, sender: Sender, max_inflight: int) -> None:
        self.lock = threading.Lock()
        self.placement = placement
        self.sender = sender
        self._max_inflight = max_inflight
        self._open: dict[tuple[asyncio.AbstractEventLoop, bytes, float, str | None], Joint] = {}
        self._reply_bytes: dict[bytes, int] = {}

    def join(self, message: Message, timeout_s: float, digest: str | None, crew: Crew) -> Share | None:
        """Have a request of what runs in a loop go with others; None where it is to go by itself."""
        loop = asyncio._get_running_loop()  # noqa: SLF001  # the public one raises where there is none, which is slow
        if loop is None or len(message.buffers) != 1:
            return None
        (body,) = message.buffers
        with self.lock:
            # A plain tuple is found as a `Kind` is, and made in a third of the time.
            joint = self._open.get((loop, message.header, timeout_s, digest))
            if joint is None:
                joint = self._begin(Kind(loop, message.header, timeout_s, digest), body.nbytes, crew)
            # A body that is not what its header says goes by itself, and a worker refuses it.
            if joint is None or joint.bytes_each != body.nbytes:
                return None
            share = joint.add(body)
            is_full = joint.is_full
        if is_full:
            self.send(joint)
        return share

    def send(self, joint: Joint) -> None:
        """Send a joint request as it is; quiet when it was sent before."""
        with self.lock:
            if self._open.get(joint.kind) is not joint:
                return
            del self._open[joint.kind]
            joint.seal()
        try:
            self.sender.send(joint, joint.crew.digest)
        except ModelServeError as error:
            joint.fail(error)
            joint.notify(None)

    def send_all(self) -> None:
        """Send whatever is open."""
        for joint in list(self._open.values()):
            self.send(joint)

    def learn(self, kind: Kind, reply_bytes: int) -> None:
        """Such a request was answered by so many bytes. The lock is held."""
        if len(self._reply_bytes) > _KNOWN_REPLIES:
            self._reply_bytes.clear()
        self._reply_bytes[kind.header] = reply_bytes

    def leave(self, joint: Joint) -> None:
        """A joint request has its answer, or a reason why there is none; quiet when it was told before."""
        with self.lock:
            joint.crew.dispatcher.gathered -= joint.gathered
            joint.gathered = 0

    def _begin(self, kind: Kind, body_bytes: int, crew: Crew) -> Joint | None:
        dispatcher = crew.dispatcher
        if not crew.may_join or kind.digest not in {None, crew.digest} or not dispatcher.is_busy:
            return None
        layout = joinable(kind.header)
        if layout is None or layout.body_bytes != body_bytes or body_bytes > _MOST_BYTES:
            return None
        most = self._most(kind, layout, dispatcher)
        if most < 2:
            return None
        placement, each = self.placement, self._bytes_each(kind, layout)
        try:
            block = placement.arena.take(Joint.block_bytes(kind.header, most, each))
        except OverloadedError:
            return None  # a single one may still find room
        self._open[kind] = joint = Joint(self, kind, layout, crew, block, most)
        placement.listener.attend(kind.loop)
        kind.loop.call_soon(self.send, joint)
        return joint

    def _most(self, kind: Kind, layout: Layout, dispatcher: Dispatcher) -> int:
        """How many such requests are worth joining."""
        senders = [lane.sender for lane in dispatcher.lanes]
        rows = max([sender.join_rows for sender in senders], default=0)
        row_ns = max([sender.row_ns for sender in senders], default=0)
        if row_ns:
            rows = min(rows, _RUN_NS // row_ns)
        most = min(rows // layout.rows, _BLOCK_BYTES // self._bytes_each(kind, layout))
        return min(most, self._max_inflight - dispatcher.inflight)

    def _bytes_each(self, kind: Kind, layout: Layout) -> int:
        """What each request takes in a block, with its answer."""
        return layout.body_bytes + self._reply_bytes.get(kind.header, 0)
