"""Where a request and its answer lie in shared memory.

┌ header ┬ tensors ┬ room for the answer ┐    one block; an answer that will be large has a block of its own
"""

from __future__ import annotations

import itertools
import time

from modelserve.errors import OverloadedError
from modelserve.runtime.listener import Listener
from modelserve.runtime.memory import Arena
from modelserve.runtime.pending import LENT_FROM_BYTES, Pending
from modelserve.wire import Message

_UNKNOWN_REPLY_BYTES = 16 << 10
_KNOWN_REPLIES = 4096
_LONGEST_S = 1e6


class Placement:
    """Writes requests into shared memory, and learns how much room the answers of their kind need."""

    def __init__(self, arena: Arena, listener: Listener) -> None:
        self.arena = arena
        self.listener = listener
        #: A number that no other request of this pool has.
        self.ticket = itertools.count(1).__next__
        self._reply_bytes: dict[bytes, int] = {}

    def place(self, message: Message, rows: int, timeout_s: float) -> Pending:
        """Write the request into shared memory, with room for its answer behind it."""
        header, buffers = message
        body_bytes = buffers[0].nbytes if len(buffers) == 1 else sum([buffer.nbytes for buffer in buffers])
        reply_bytes = self._reply_bytes.get(header, _UNKNOWN_REPLY_BYTES)
        body_at = aligned(len(header))
        reply_at = aligned(body_at + body_bytes)
        separate = reply_bytes > LENT_FROM_BYTES
        arena = self.arena
        offset, kind = arena.take(reply_at + (0 if separate else reply_bytes))
        blocks = [(offset, kind)]
        reply_offset = offset + reply_at
        try:
            if separate:
                blocks.append(arena.take(reply_bytes))
                reply_offset = blocks[1][0]
        except OverloadedError:
            arena.give_back(offset, kind)
            raise
        view = arena.view
        view[offset : offset + len(header)] = header
        at = offset + body_at
        for buffer in buffers:
            view[at : at + buffer.nbytes] = buffer
            at += buffer.nbytes
        where = (offset, len(header), body_bytes, reply_offset, reply_bytes)
        entry = [self.ticket(), *where, 0, deadline_ns(timeout_s)]
        return Pending(arena, self.listener, entry, blocks, rows, timeout_s)

    def enlarge(self, pending: Pending, needed: int) -> None:
        """Get a block for an answer that is larger than was thought, and remember it for the next request like it.

        Raises:
            OverloadedError: there is no room for it.
        """
        header_at, header_bytes = pending.entry[1], pending.entry[2]
        if len(self._reply_bytes) > _KNOWN_REPLIES:
            self._reply_bytes.clear()
        self._reply_bytes[bytes(self.arena.view[header_at : header_at + header_bytes])] = needed
        pending.use_block(*self.arena.take(needed), needed)


def aligned(size_bytes: int) -> int:
    """The next multiple of 64, where a tensor may begin."""
    return (size_bytes + 63) & ~63


def deadline_ns(timeout_s: float) -> int:
    """When that time will be over, on the monotonic clock."""
    return time.monotonic_ns() + int(min(timeout_s, _LONGEST_S) * 1e9)
