"""An HTTP server on 127.0.0.1, in a thread of its own, for whoever stands in for a cloud.

    with LoopbackServer(answering(handle)) as server:
        client(endpoint_url=server.url)

`handle` is a plain function from an `Exchange` to an `Answered`; each call has a thread. A cloud that brings an ASGI
application of its own gives that instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qs, unquote

import uvicorn

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
Pieces: TypeAlias = Generator[bytes, None, None]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_THREADS = 64
_LONGEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request. Names of headers are lower case; `raw_path` is as it was sent, query included."""

    method: str
    path: str
    raw_path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer. `pieces` instead of `body` are sent as they come, in chunks unless a header tells their length."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Pieces | None = None

    def whole(self) -> Answered:
        """The same, all pieces in one body."""
        return self if self.pieces is None else replace(self, body=b"".join(self.pieces), pieces=None)


class Broken(Exception):  # noqa: N818  # no error here: it is what the caller is to see
    """Raised by a handler whose answer is not to arrive, or by its pieces: the connection is cut."""


class LoopbackServer:
    """Serves an ASGI application until the end of `with`.

    Args:
        certificate: A PEM file with certificate and key; HTTPS then.
    """

    def __init__(self, app: App, *, certificate: str | None = None) -> None:
        self._scheme = "http" if certificate is None else "https"
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            lifespan="off",
            ws="none",
            server_header=False,
            date_header=False,
            ssl_certfile=certificate,
            timeout_graceful_shutdown=1,
        )
        self._server = _QuietServer(config)
        self._thread = threading.Thread(target=self._run, name="modelserve-standin", daemon=True)

    @property
    def url(self) -> str:
        """Such as http://127.0.0.1:40123."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def start(self) -> Self:
        self._thread.start()
        if not self._server.listening.wait(_LONGEST_S):
            raise RuntimeError("The stand-in's server does not start.")
        return self

    def close(self) -> None:
        """Quiet when called twice."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_LONGEST_S)
        self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.run(self._server.serve([self._socket]))


class _QuietServer(uvicorn.Server):
    """uvicorn in a thread: it takes no signals, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def answering(handle: Callable[[Exchange], Answered]) -> App:
    """An ASGI application that asks a plain function, each time in a thread.

    A function that raises `Broken` cuts the connection.
    """
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="modelserve-standin")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _exchange(scope, await _body(receive))
        try:
            answered = await asyncio.get_running_loop().run_in_executor(threads, handle, exchange)
            # The answer to HEAD has the length of what GET would send, and no body.
            length = {"content-length": str(len(answered.body))} if answered.pieces is None else {}
            headers = (length | answered.headers).items()
            raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            await send({"type": "http.response.start", "status": answered.status, "headers": raw})
            if answered.pieces is not None:
                await _send_all(answered.pieces, send, threads)
            await send({"type": "http.response.body", "body": answered.body})
        except Broken:
            _cut(send)

    return app


async def _send_all(pieces: Pieces, send: Send, threads: ThreadPoolExecutor) -> None:
    """All but the end of the body."""
    loop = asyncio.get_running_loop()
    while (piece := await loop.run_in_executor(threads, next, pieces, None)) is not None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


def _cut(send: Any) -> None:
    # ASGI has no word for it; uvicorn's `send` belongs to the object that holds the connection.
    send.__self__.transport.abort()


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Broken
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _exchange(scope: Scope, body: bytes) -> Exchange:
    raw = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return Exchange(
        method=scope["method"],
        path=unquote(raw.partition("?")[0]),
        raw_path=f"{raw}?{query}" if query else raw,
        query=parse_qs(query, keep_blank_values=True),
        headers=headers,
        body=body,
    )
