"""Bytes of one connection, in: heads are judged as soon as they are whole, bodies gathered within bounds.

bytes ─► parser ─► head ─► application.begin ─► body in pieces, or straight into its own memory ─► request
                              └─ refuses: a response, and nothing that follows is read
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

import httptools

from modelserve.runtime.server.http.body import DIRECT_FROM_BYTES, BodyStream, DirectBody
from modelserve.runtime.server.http.messages import NOTHING, Request, Response

if TYPE_CHECKING:
    from modelserve.runtime.server.http.listener import Listener

# Of these a second one is an attempt to be read differently by two parties, never an everyday request.
_ONCE = frozenset({b"host", b"content-length", b"content-type", b"authorization", b"inference-header-content-length"})
_DIGITS = 18


class Application(Protocol):
    """What answers. None of its methods may raise."""

    def begin(self, request: Request) -> Response | None:
        """Look at a request's head; a response refuses it unread."""
        ...

    def wants_stream(self, request: Request) -> bool:
        """Whether the body is to be read while it comes."""
        ...

    def answer(self, request: Request) -> Response | Coroutine[Any, Any, Response]:
        """Answer a request whose body is here (or comes, where it is a stream)."""
        ...

    def refuse(self, status: int, message: str) -> Response:
        """What to say to a request that is none."""
        ...


class Taker(Protocol):
    """Where requests go."""

    def take(self, request: Request) -> None: ...

    def take_refusal(self, response: Response) -> None:
        """The last thing to be said on this connection."""
        ...

    def hold(self, is_behind: bool) -> None:
        """Stop reading, or go on."""
        ...

    def interim(self, line: bytes) -> None:
        """Say at once that the body may come."""
        ...


class Intake:
    """Reads one connection. Once it has refused, everything else is thrown away.

    Attributes:
        since: When what is being waited for began, on the monotonic clock.
        refused: Whether it has.
    """

    def __init__(self, listener: Listener, taker: Taker) -> None:
        self._limits = listener.limits
        self._application: Application = listener.application
        self._reserve_bytes: Callable[[int], bool] = listener.reserve
        self._scratch = listener.scratch
        self._taker = taker
        self._parser = httptools.HttpRequestParser(self)
        self._target = NOTHING
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._head_count = 0
        self._request: Request | None = None
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._direct: DirectBody | None = None
        self.peer = ""
        self.refused = False
        self.since = time.monotonic()

    @property
    def buffer(self) -> memoryview:
        """Where the socket's next bytes go."""
        return self._scratch if self._direct is None else self._direct.room

    @property
    def is_resting(self) -> bool:
        """Whether it is between two requests."""
        return not self._target and self._request is None

    def received(self, size_bytes: int) -> None:
        """So many bytes came into the buffer."""
        direct = self._direct
        if direct is None:
            if not self.refused:
                self._feed(self._scratch[:size_bytes])
            return
        self._body_bytes += size_bytes
        if direct.advance(size_bytes):
            self._parser = httptools.HttpRequestParser(self)
            self._complete(direct.content)

    def end(self, why: str) -> None:
        """No more will come."""
        request = self._request
        if request is not None and request.stream is not None:
            request.stream.end(why)

    def lose(self) -> None:
        """The connection is gone: what came of a request is let go."""
        request, self._request = self._request, None
        if request is not None and request.stream is None:
            self._reserve_bytes(-request.reserved_bytes)

    def is_reading(self, request: Request) -> bool:
        """Whether this request's body is still coming."""
        return self._request is request

    def refuse(self, status: int, message: str) -> None:
        """Answer that this is no request that can be answered."""
        if not self.refused:
            self._refuse_with(self._application.refuse(status, message))

    def is_late(self, now: float) -> bool:
        """Whether what was begun should have come by now."""
        waited, limits = now - self.since, self._limits
        if self._request is not None and self._request.stream is not None:
            return waited > limits.idle_timeout_s  # its pace is its own, as long as it goes on
        if self._request is not None:
            return waited > limits.body_grace_s + self._body_bytes / limits.body_rate_bytes
        return bool(self._target) and waited > limits.head_timeout_s

    # What the parser calls.

    def on_url(self, part: bytes) -> None:
        if not self._target:
            self.since = time.monotonic()
        self._target += part
        self._count_head(len(part))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_count += 1
        self._count_head(len(name) + len(value) + 4)
        if self.refused or self._request is not None:
            return  # after the body: counted, and no part of what is asked
        name = name.lower()
        before = self._headers.get(name)
        if before is not None:
            if name in _ONCE:
                self.refuse(400, f"The header {name.decode('latin-1')!r} stands twice. Send it once.")
            value = b"%b, %b" % (before, value)
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        if self.refused:
            return
        headers, parser = self._headers, self._parser
        self._request = request = Request(parser.get_method(), self._target, headers, self.peer)
        request.keep_alive = parser.should_keep_alive()
        request.arrived_ns = time.monotonic_ns()
        if b"host" not in headers and parser.get_http_version() != "1.0":
            self.refuse(400, "The header 'host' is missing, which HTTP/1.1 asks for. Send it.")
            return
        response = self._application.begin(request)
        if response is not None:
            self._refuse_with(response)
            return
        upgrades = parser.should_upgrade()
        if upgrades and b"transfer-encoding" in headers:
            self.refuse(400, "A body in chunks cannot come with 'upgrade'. Leave that header out.")
            return
        streams = not upgrades and self._application.wants_stream(request)
        if not streams and not self._has_room(headers.get(b"content-length")):
            return
        if headers.get(b"expect", NOTHING).lower() == b"100-continue":
            self._taker.interim(b"HTTP/1.1 100 Continue\r\n\r\n")
        if streams:
            request.stream = BodyStream(self._taker.hold)
            self._taker.take(request)

    def on_body(self, part: bytes) -> None:
        request = self._request
        if self.refused or request is None:
            return
        self._body_bytes += len(part)
        if request.stream is not None:
            self.since = time.monotonic()
            request.stream.feed(part)
        elif request.reserved_bytes >= self._body_bytes or self._reserve(request, self._body_bytes):
            self._parts.append(part)

    def on_message_complete(self) -> None:
        if self.refused:
            return
        request = self._request
        if request is not None and request.reserved_bytes and self._parser.should_upgrade():
            return  # its body is still to come
        parts = self._parts
        self._complete(parts[0] if len(parts) == 1 else b"".join(parts))

    # In the order they are called.

    def _feed(self, data: memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None  # a fault of our own, not of the client
        except httptools.HttpParserError as error:
            self.refuse(400, f"This is not HTTP/1.1 ({error}). Correct the client.")
        request = self._request
        if request is not None and request.reserved_bytes - self._body_bytes >= DIRECT_FROM_BYTES and not self.refused:
            self._direct = DirectBody(request.reserved_bytes, self._parts)

    def _go_on_after_upgrade(self, rest: memoryview) -> None:
        """Nothing here is ever upgraded: RFC 9110 lets a server answer as if it had not been asked to.

        The parser leaves the body of such a request to whoever would take over.
        """
        self._parser = httptools.HttpRequestParser(self)
        request = self._request
        if request is not None and not self.refused:
            self._direct = direct = DirectBody(request.reserved_bytes, [])
            size = min(len(rest), request.reserved_bytes)
            direct.room[:size] = rest[:size]
            rest = rest[size:]
            self.received(size)
        if rest:
            self._feed(rest)

    def _has_room(self, announced: bytes | None) -> bool:
        """Whether a body of the announced length may come."""
        if announced is None:
            return True
        request = self._request
        assert request is not None
        if len(announced) > _DIGITS:
            self.refuse(413, f"The body is larger than {self._limits.body_bytes} bytes. Send less at once.")
            return False
        return self._reserve(request, int(announced))

    def _reserve(self, request: Request, size_bytes: int) -> bool:
        """Have room for so much of this request's body."""
        if size_bytes > self._limits.body_bytes:
            self.refuse(413, f"The body is larger than {self._limits.body_bytes} bytes. Send less at once.")
            return False
        if size_bytes > request.reserved_bytes:
            if not self._reserve_bytes(size_bytes - request.reserved_bytes):
                self.refuse(503, "The server holds as many bodies as it may at this moment. Try again.")
                return False
            request.reserved_bytes = size_bytes
        return True

    def _complete(self, body: bytes | memoryview) -> None:
        request = self._request
        assert request is not None
        self._target, self._headers, self._request, self._direct = NOTHING, {}, None, None
        self._head_bytes = self._head_count = self._body_bytes = 0
        if request.stream is not None:
            request.stream.end()
            return
        self._parts = []
        request.body = body
        self._taker.take(request)

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self._limits.head_bytes or self._head_count > self._limits.headers:
            self.refuse(
                431,
                f"At most {self._limits.headers} headers of {self._limits.head_bytes} bytes together are read. "
                "Send fewer.",
            )

    def _refuse_with(self, response: Response) -> None:
        self.refused = True
        request, self._request, self._direct = self._request, None, None
        self._parts = []
        if request is not None:
            self._reserve_bytes(-request.reserved_bytes)
            if request.stream is not None:
                request.stream.end("it was refused")
            if request.method == b"HEAD":
                response.body = NOTHING
        self._taker.take_refusal(response)
