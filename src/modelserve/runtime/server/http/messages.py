"""A request as it arrived, and a response as it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelserve.runtime.server.http.body import BodyStream

JSON = b"application/json"
PROBLEM = b"application/problem+json"
TEXT = b"text/plain; charset=utf-8"
NOTHING = b""

Headers = tuple[tuple[bytes, bytes], ...]
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus if status >= 100
}


class Request:
    """One request. `headers` are by lower-case name; of one that stands several times, all values joined by commas.

    Attributes:
        target: Path and query as they were sent.
        body: The whole body, unless `stream` is set, from which it is read as it comes.
        arrived_ns: When its headers were complete, on the monotonic clock.
        route, arguments, caller, id, timing, trace_id: What the application notes while it is answered.
    """

    __slots__ = (
        "arguments",
        "arrived_ns",
        "body",
        "caller",
        "headers",
        "id",
        "keep_alive",
        "method",
        "peer",
        "reserved_bytes",
        "route",
        "stream",
        "target",
        "timing",
        "trace_id",
    )

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes], peer: str) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.peer = peer
        self.body: bytes | memoryview = NOTHING
        self.stream: BodyStream | None = None
        self.keep_alive = True
        self.arrived_ns = 0
        self.id = NOTHING
        self.route: Any = None
        self.reserved_bytes = 0
        self.arguments: tuple[str, ...] = ()
        self.caller: Any = None
        self.timing: Any = None
        self.trace_id = ""


class Response:
    """One response. `body` in one or several pieces, or `stream` for one whose length is not known beforehand.

    `lines` are further header lines as they are written, for what stands on every answer.
    """

    __slots__ = ("body", "close", "content_type", "headers", "lines", "status", "stream")

    def __init__(
        self,
        body: bytes | list[bytes | memoryview] = NOTHING,
        content_type: bytes = JSON,
        *,
        status: int = 200,
        headers: Headers = (),
        stream: AsyncIterator[bytes] | None = None,
        close: bool = False,
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.status = status
        self.headers = headers
        self.stream = stream
        self.close = close
        self.lines = NOTHING


def head(response: Response, length: int | None, keep_alive: bool) -> bytes:
    """Status line and headers; without a length the body comes in chunks."""
    lines = [_STATUS_LINES[response.status]]
    if response.content_type:
        lines += (b"content-type: ", response.content_type, b"\r\n")
    lines.append(b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length)
    for name, value in response.headers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(response.lines)
    lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return b"".join(lines)
