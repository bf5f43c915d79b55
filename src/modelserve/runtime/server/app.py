"""Between connections and handlers: who may ask, who answers, what a failure looks like, what is counted.

begin   route ─► ready? ─► access                 before the body is read
answer  handler ─► response, or the error as one ─► request id, Server-Timing
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Protocol

from modelserve.errors import ModelServeError
from modelserve.runtime.server import problems
from modelserve.runtime.server.formats import lines
from modelserve.runtime.server.formats.media import UnsupportedMediaError, media_type
from modelserve.runtime.server.http.encoding import TooLargeError, decoded
from modelserve.runtime.server.http.messages import NOTHING, Request, Response
from modelserve.runtime.server.life import Life, Phase
from modelserve.runtime.server.routes import Route, Routes

_log = logging.getLogger(__name__)
_LONGEST_ID = 128
# What only HTTP has a word for.
_STATUS: dict[type[ModelServeError], int] = {TooLargeError: 413, UnsupportedMediaError: 415}


class Access(Protocol):
    """Who may do what."""

    def check(self, request: Request, route: Route) -> Response | None:
        """Note who asks; a response refuses it."""
        ...


class Watcher(Protocol):
    """Who is told of every answer."""

    def answered(self, request: Request, response: Response, elapsed_ns: int) -> None: ...


class App:
    """Answers requests by their routes.

    Args:
        most_bytes: Largest body after it was unfolded.
        id_headers: Where a client may name its request, the first that it uses.
    """

    def __init__(
        self,
        routes: Routes,
        life: Life,
        access: Access,
        most_bytes: int,
        watchers: tuple[Watcher, ...] = (),
        id_headers: tuple[bytes, ...] = (b"x-request-id",),
    ) -> None:
        self._id_headers = id_headers
        self._most_bytes = most_bytes
        self._routes = routes
        self._life = life
        self._access = access
        self._watchers = watchers
        self._id_prefix = secrets.token_hex(6).encode()
        self._numbers = itertools.count(1)

    def begin(self, request: Request) -> Response | None:
        request.id = self._named(request.headers) or b"%b-%x" % (self._id_prefix, next(self._numbers))
        try:
            response = self._routes.find(request) or self._check(request)
        except Exception as error:  # noqa: BLE001  # one of the two places that answer for every failure
            response = self.failed(request, error)
        return None if response is None else self.finished(request, response)

    def wants_stream(self, request: Request) -> bool:
        route: Route = request.route
        return route.streams and media_type(request) in lines.KINDS and b"content-encoding" not in request.headers

    def answer(self, request: Request) -> Response | Coroutine[Any, Any, Response]:
        return self._answer(request)

    def refuse(self, status: int, message: str) -> Response:
        return problems.problem(status, message, code="http", retry_s=1.0 if status == 503 else None)

    def _check(self, request: Request) -> Response | None:
        route: Route = request.route
        if not route.always and self._life.phase is Phase.STARTING:
            return problems.problem(503, "Not ready: the server is starting.", code="not_ready", retry_s=1)
        return self._access.check(request, route)

    async def _answer(self, request: Request) -> Response:
        try:
            if b"content-encoding" in request.headers:
                await self._unfold(request)
            outcome = request.route.handler(request)
            response = outcome if isinstance(outcome, Response) else await outcome
        except Exception as error:  # noqa: BLE001  # the other place
            response = self.failed(request, error)
        return self.finished(request, response)

    async def _unfold(self, request: Request) -> None:
        encoding = request.headers.pop(b"content-encoding")
        work = partial(decoded, request.body, encoding, self._most_bytes)
        request.body = await asyncio.get_running_loop().run_in_executor(None, work)

    def _named(self, headers: dict[bytes, bytes]) -> bytes:
        for name in self._id_headers:
            asked = headers.get(name)
            if asked is not None and _is_id(asked):
                return asked
        return NOTHING

    def failed(self, request: Request, error: Exception) -> Response:
        """What to say of an error, ours or none of ours."""
        if isinstance(error, ModelServeError):
            return problems.from_error(error, _STATUS.get(type(error)))
        said = {"request_id": request.id.decode("ascii", "replace")}
        _log.exception("A request failed by a fault of the server.", exc_info=error, extra=said)
        return problems.problem(500, "The server failed; its log says why.", code="internal")

    def finished(self, request: Request, response: Response) -> Response:
        """Add what stands on every answer, and tell the watchers."""
        elapsed_ns = time.monotonic_ns() - request.arrived_ns
        response.lines = b"x-request-id: %b\r\nserver-timing: %b\r\n" % (request.id, _timing(request, elapsed_ns))
        for watcher in self._watchers:
            watcher.answered(request, response, elapsed_ns)
        return response


def _timing(request: Request, elapsed_ns: int) -> bytes:
    """Where the time went, in milliseconds, as `Server-Timing` says it."""
    timing = request.timing
    if timing is None or request.stream is not None:
        return b"total;dur=%.3f" % (elapsed_ns / 1e6)
    return b'queue;dur=%.3f, compute;dur=%.3f;desc="joined %d", total;dur=%.3f' % (
        (timing.began_ns - timing.sent_ns) / 1e6,
        (timing.computed_ns - timing.began_ns) / 1e6,
        timing.joined,
        elapsed_ns / 1e6,
    )


def _is_id(asked: bytes) -> bool:
    return 0 < len(asked) <= _LONGEST_ID and asked.isascii() and b" " not in asked and asked.decode().isprintable()
