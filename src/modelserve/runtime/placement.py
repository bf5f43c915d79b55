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
        self._arena = arena
        self._listener = listener
        self._tickets = itertools.count(1)
        self._reply_bytes: dict[bytes, int] = {}

    def place(self, message: Message, rows: int, timeout_s: float) -> Pending:
        """Write the request into shared memory, with room for its answer behind it."""
        header, buffers = message
        body_bytes = buffers[0].nbytes if len(buffers) == 1 else sum([buffer.nbytes for buffer in buffers])
        reply_bytes = self._reply_bytes.get(header, _UNKNOWN_REPLY_BYTES)
        body_at = (len(header) + 63) & ~63
        reply_at = (body_at + body_bytes + 63) & ~63
        separate = reply_bytes > LENT_FROM_BYTES
        arena = self._arena
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
        deadline_ns = time.monotonic_ns() + int(min(timeout_s, _LONGEST_S) * 1e9)
        entry = [next(self._tickets), offset, len(header), body_bytes, reply_offset, reply_bytes, 0, deadline_ns]
        return Pending(arena, self._listener, entry, blocks, rows, timeout_s)

    def enlarge(self, pending: Pending, needed: int) -> None:
        """Get a block for an answer that is larger than was thought, and remember it for the next request like it.

        Raises:
            OverloadedError: there is no room for it.
        """
        header_at, header_bytes = pending.entry[1], pending.entry[2]
        if len(self._reply_bytes) > _KNOWN_REPLIES:
            self._reply_bytes.clear()
        self._reply_bytes[bytes(self._arena.view[header_at : header_at + header_bytes])] = needed
        pending.use_block(*self._arena.take(needed), needed)
