"""One connection: its requests are answered one after the other, in the order in which they came.

Intake ─► queue ─► application.answer ─► Writer
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, cast

from modelserve.runtime.server.http.drive import Drive
from modelserve.runtime.server.http.intake import Intake
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.http.writer import Writer

if TYPE_CHECKING:
    from modelserve.runtime.server.http.listener import Listener


class Connection(asyncio.BufferedProtocol):
    """Speaks HTTP/1.1 with one client."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._application = listener.application
        self._intake = Intake(listener, self)
        #: What waits for its turn; a response among them is a refusal, and the last.
        self._queue: deque[Request | Response] = deque()
        self._answering: Request | None = None
        self._drive: Drive[Response] | None = None
        self._ended = False
        self._closing_since: float | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._writer = Writer(self._transport, self._listener.outbox)
        name = transport.get_extra_info("peername")
        self._intake.peer = str(name[0]) if isinstance(name, tuple) else "local"
        if not self._listener.admit(self):
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.forget(self)
        self._intake.end("the connection was closed")
        self._intake.lose()
        self._writer.lose()
        if self._drive is not None:
            self._drive.stop()
        for request in (self._answering, *self._queue):
            if isinstance(request, Request):
                self._listener.reserve(-request.reserved_bytes)
        self._queue.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._intake.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._intake.received(nbytes)

    def eof_received(self) -> bool:
        """The client sends no more; it may still wait for answers."""
        self._ended = True
        self._intake.end("the client stopped sending")
        return self._closing_since is None and (self._answering is not None or bool(self._queue))

    def pause_writing(self) -> None:
        self._writer.pause()

    def resume_writing(self) -> None:
        self._writer.resume()

    # What the intake calls.

    def take(self, request: Request) -> None:
        if self._answering is None and not self._queue:
            self._start(request)
            return
        self._queue.append(request)
        self._transport.pause_reading()
        if len(self._queue) > self._listener.limits.pipelined:
            self._transport.abort()  # nobody sends so far ahead who means to read the answers

    def take_refusal(self, response: Response) -> None:
        self._queue.append(response)
        self._next()

    def interim(self, line: bytes) -> None:
        if self._answering is None:
            self._listener.outbox.put(self._transport, line)

    def hold(self, is_behind: bool) -> None:
        if not self._transport.is_closing():
            (self._transport.pause_reading if is_behind else self._transport.resume_reading)()

    # Turns.

    def _start(self, request: Request) -> None:
        self._answering = request
        answer = self._application.answer(request)
        if isinstance(answer, Response):
            self._respond(answer)
            return
        drive = Drive(answer, self._respond)
        if self._answering is request:
            self._drive = drive

    def _respond(self, response: Response) -> None:
        request, self._drive = self._answering, None
        assert request is not None
        if self._transport.is_closing():
            return
        keep_alive = request.keep_alive and not (response.close or self._ended or self._listener.draining)
        if response.stream is not None:
            self._writer.stream(response, keep_alive, lambda whole: self._after(request, keep_alive and whole))
            return
        self._writer.write(response, keep_alive, head_only=request.method == b"HEAD")
        self._after(request, keep_alive)

    def _after(self, request: Request, keep_alive: bool) -> None:
        """An answer was written."""
        self._answering = None
        if request.reserved_bytes:
            self._listener.reserve(-request.reserved_bytes)
        # An answer that came before the end of a streamed body leaves bytes that would be taken for a request.
        if not keep_alive or self._intake.is_reading(request):
            self._linger()
        elif self._queue:
            # From the loop itself: a hundred of them must not be a hundred calls deep.
            asyncio.get_running_loop().call_soon(self._next)
        elif self._intake.is_resting:
            self._intake.since = self._listener.now

    def _next(self) -> None:
        if self._answering is not None or not self._queue or self._transport.is_closing():
            return
        waiting = self._queue.popleft()
        if isinstance(waiting, Response):
            self._writer.write(waiting, keep_alive=False)
            self._linger()
            return
        if not self._queue:
            self._transport.resume_reading()
        self._start(waiting)

    def _linger(self) -> None:
        """Close, but read on for a moment: a reset would take the answer from a client that is still sending."""
        self._intake.refused = True
        self._closing_since = time.monotonic()
        if self._ended or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()

    # What the listener calls.

    def close_idle(self) -> None:
        """Close when nothing is asked here."""
        if self._answering is None and not self._queue and self._intake.is_resting and self._closing_since is None:
            self._transport.close()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        self._transport.abort()

    def check(self, now: float) -> None:
        """Called every second: whoever takes too long is let go."""
        limits = self._listener.limits
        if self._closing_since is not None:
            if now - self._closing_since > limits.linger_s:
                self._transport.abort()
        elif self._writer.held_for(now) > limits.write_timeout_s:
            self._transport.abort()
        elif self._answering is not None or self._queue:
            if self._intake.is_late(now) and self._answering is not None and self._answering.stream is not None:
                self._intake.end("it did not come in time")
        elif self._intake.is_late(now):
            self._intake.refuse(408, "The request did not come in time. Send it faster.")
        elif self._intake.is_resting and now - self._intake.since > limits.idle_timeout_s:
            self._transport.close()
