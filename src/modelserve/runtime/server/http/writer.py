"""Responses of one connection, out: whole where they are known, in chunks where they are made while they are sent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from modelserve.runtime.server.http.messages import Response, head
from modelserve.runtime.server.http.outbox import Outbox

_ONE_PIECE_BYTES = 64 << 10
_log = logging.getLogger(__name__)


class Writer:
    """Writes to one transport."""

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self._open: asyncio.Event | None = None
        self._held_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    def write(self, response: Response, keep_alive: bool, *, head_only: bool = False) -> None:
        """Write a response whose body is here."""
        body = response.body
        pieces = body if isinstance(body, list) else [body]
        length = sum([len(piece) for piece in pieces])
        first = head(response, length, keep_alive)
        if length <= _ONE_PIECE_BYTES or head_only:
            self._outbox.put(self._transport, first if head_only else b"".join([first, *pieces]))
        else:
            self._outbox.send()
            self._transport.writelines([first, *pieces])
        if not keep_alive:
            self._outbox.send()  # the connection is closed next

    def stream(self, response: Response, keep_alive: bool, done: Callable[[bool], None]) -> None:
        """Write a response as it is made, at the pace of who reads it; `done` is told whether it was whole."""
        self._task = asyncio.get_running_loop().create_task(self._stream(response, keep_alive, done))

    def pause(self) -> None:
        """The client does not keep up."""
        self._held_since = time.monotonic()
        if self._open is not None:
            self._open.clear()

    def resume(self) -> None:
        self._held_since = None
        if self._open is not None:
            self._open.set()

    def held_for(self, now: float) -> float:
        """Seconds for which the client has not kept up."""
        return 0.0 if self._held_since is None else now - self._held_since

    def lose(self) -> None:
        """The connection is gone."""
        if self._task is not None:
            self._task.cancel()

    async def _stream(self, response: Response, keep_alive: bool, done: Callable[[bool], None]) -> None:
        self._open = asyncio.Event()
        if self._held_since is None:
            self._open.set()
        assert response.stream is not None
        self._outbox.send()
        self._transport.write(head(response, None, keep_alive))
        whole = False
        try:
            async for part in response.stream:
                if part:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
                await self._open.wait()
            self._transport.write(b"0\r\n\r\n")
            whole = True
        except Exception:  # noqa: BLE001  # the head has gone: all that can be said now is that the body is not whole
            _log.exception("A streamed answer broke off.")
        finally:
            self._open = None
        done(whole)
