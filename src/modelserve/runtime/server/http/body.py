"""A body while it comes: whole into one piece of memory, or piece by piece to whoever reads it as a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np

from modelserve.errors import WireError

#: Bodies from this size on are read straight into memory of their own, past the parser.
DIRECT_FROM_BYTES = 64 << 10
_HELD_BYTES = 256 << 10


class DirectBody:
    """Memory for a body of known length; what the socket brings next is written where it belongs."""

    __slots__ = ("_filled", "_memory")

    def __init__(self, length: int, parts: list[bytes]) -> None:
        # Untouched memory: a client that announces much and sends little takes little.
        self._memory = np.empty(length, np.uint8).data
        self._filled = 0
        for part in parts:
            self._memory[self._filled : self._filled + len(part)] = part
            self._filled += len(part)

    @property
    def room(self) -> memoryview:
        """Where the next bytes go."""
        return self._memory[self._filled :]

    def advance(self, size_bytes: int) -> bool:
        """Note that so many came; whether it is complete."""
        self._filled += size_bytes
        return self._filled == len(self._memory)

    @property
    def content(self) -> memoryview:
        return self._memory


class BodyStream:
    """The pieces of a body, in order, for one reader. Holds the sender back while the reader is behind.

    Args:
        hold: Called with True when too much waits here, and with False when there is room again.
    """

    def __init__(self, hold: Callable[[bool], None]) -> None:
        self._hold = hold
        self._parts: deque[bytes] = deque()
        self._size_bytes = 0
        self._held = False
        self._ended = False
        self._broken = ""
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, part: bytes) -> None:
        self._parts.append(part)
        self._size_bytes += len(part)
        if self._size_bytes > _HELD_BYTES and not self._held:
            self._held = True
            self._hold(True)
        self._wake()

    def end(self, broken: str = "") -> None:
        """No more will come; `broken` says why, where it came to an end before its own."""
        self._ended = True
        self._broken = broken
        self._wake()

    @property
    def is_empty(self) -> bool:
        """Whether the reader has everything that came so far."""
        return not self._parts

    async def read(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
            WireError: the connection ended before the body.
        """
        while not self._parts:
            if self._broken:
                raise WireError(f"The body is not whole: {self._broken}.")
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        part = self._parts.popleft()
        self._size_bytes -= len(part)
        if self._held and self._size_bytes <= _HELD_BYTES // 2:
            self._held = False
            self._hold(False)
        return part

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
