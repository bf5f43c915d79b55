"""The port for gRPC: the same rules as for HTTP, around the methods of the protocol.

HTTP/2 (grpcio) ─► head ─► app.begin ─── message ───► method
                    │  route, ready?, access             │
                    └──► refused, the message unread     ▼
               status, request id, Server-Timing ◄─ app.finished

grpcio keeps HTTP/2, flow control, and the bounds on messages and heads that it is given here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError

from modelserve.errors import ConfigError, DeadlineError, OverloadedError, WireError
from modelserve.runtime.server.app import App
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.life import Life
from modelserve.runtime.server.models.repository import Repository
from modelserve.runtime.server.routes import Route, Routes
from modelserve.runtime.server.rpc.schema import SERVICE, classes
from modelserve.runtime.server.rpc.service import Entry, Service
from modelserve.runtime.server.settings import ServerSettings

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_LONGEST_S = 3600.0
_STREAMS = 1024


class Front(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio ships no types
    """Answers calls. Lives in one event loop.

    Args:
        make_app: The rules for these routes.
        reserve: Takes so many bytes of what all messages together may hold; False where there is no room.
    """

    def __init__(
        self,
        repository: Repository,
        life: Life,
        make_app: Callable[[Routes], App],
        reserve: Callable[[int], bool],
        server_version: str,
    ) -> None:
        self._classes = classes()
        self._reserve = reserve
        service = Service(self._classes, repository, life, server_version)
        self._entries = {f"/{SERVICE}/{name}": entry for name, entry in service.methods().items()}
        self.routes = [_route(path, entry) for path, entry in self._entries.items()]
        self._app = make_app(Routes(self.routes))
        self._server: grpc.aio.Server | None = None

    async def listen(self, settings: ServerSettings) -> int:
        """Take calls from now on; returns the port, which the system chooses for 0.

        Raises:
            ConfigError: the address is taken or is none of this machine's.
        """
        limits = settings.limits
        self._server = server = grpc.aio.server(
            handlers=[self],
            maximum_concurrent_rpcs=limits.connections,
            options=[
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.head_bytes),
                ("grpc.absolute_max_metadata_size", limits.head_bytes),
                ("grpc.max_concurrent_streams", _STREAMS),
                ("grpc.max_connection_idle_ms", int(limits.idle_timeout_s * 1e3)),
                # Compressed messages are refused: what they unfold to is bounded only after it was unfolded.
                ("grpc.compression_enabled_algorithms_bitset", 1),
                ("grpc.so_reuseport", 0),
            ],
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.grpc_port}"
        try:
            if settings.tls_certificate is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, self._credentials(settings))
        except RuntimeError as error:
            raise ConfigError(f"Cannot listen on {address} for gRPC ({error}). Choose another port.") from error
        await server.start()
        return int(port)

    async def drain(self, timeout_s: float) -> None:
        """Take no more calls; return when those under way have ended, or the time is over."""
        if self._server is not None:
            await self._server.stop(timeout_s)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """What grpcio asks as soon as a call's head is there."""
        entry = self._entries.get(handler_call_details.method)
        if entry is None:
            return None
        request = _request(handler_call_details)
        refusal = self._app.begin(request)
        if refusal is not None:
            # As a stream, so that the message is never waited for.
            return grpc.stream_stream_rpc_method_handler(partial(self._refuse, refusal))
        if entry.streams:
            return grpc.stream_stream_rpc_method_handler(partial(self._stream, entry, request))
        return grpc.unary_unary_rpc_method_handler(partial(self._unary, entry, request))

    async def _refuse(self, refusal: Response, messages: Any, context: Any) -> None:
        await _end(refusal, context)

    async def _unary(self, entry: Entry, request: Request, content: bytes, context: Any) -> bytes:
        message, response = await self._answer(entry, request, content, context)
        if message is None:
            await _end(response, context)
        context.set_trailing_metadata(_trailing(response))
        return bytes(message.SerializeToString())

    async def _stream(
        self, entry: Entry, head: Request, messages: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        """Each message as a request of its own: to whoever grants, bounds and counts them."""
        answer = self._classes[entry.answers]
        async for content in messages:
            request = Request(head.method, head.target, head.headers, head.peer)
            request.arrived_ns = time.monotonic_ns()
            response = self._app.begin(request)
            message = None
            if response is None:
                message, response = await self._answer(entry, request, content, context)
            said = {"infer_response": message} if message is not None else {"error_message": _said(response)["error"]}
            yield bytes(answer(**said).SerializeToString())

    async def _answer(self, entry: Entry, request: Request, content: bytes, context: Any) -> tuple[Any, Response]:
        """The message to send, or None and what went wrong."""
        request.peer = context.peer()
        message: Any = None
        try:
            message = await self._asked(entry, request, content, context.time_remaining())
            response = Response()
        except Exception as error:  # noqa: BLE001  # as in `App`: whatever went wrong becomes an answer
            response = self._app.failed(request, error)
        return message, self._app.finished(request, response)

    async def _asked(self, entry: Entry, request: Request, content: bytes, left_s: float | None) -> Any:
        if left_s is not None and left_s <= 0:
            raise DeadlineError("The call's deadline had passed before it was read. Allow more time.")
        if not self._reserve(len(content)):
            raise OverloadedError("The server holds as many messages as it may at this moment. Try again.")
        try:
            asked = self._classes[entry.asks].FromString(content)
            return await entry.answer(asked, request, None if left_s is None else min(left_s, _LONGEST_S))
        except DecodeError as error:
            raise WireError(f"The message is no {entry.asks} ({error}).") from error
        finally:
            self._reserve(-len(content))

    def _credentials(self, settings: ServerSettings) -> grpc.ServerCredentials:
        """TLS with the certificate as it lies on disk now, looked at again for each connection."""
        assert settings.tls_certificate is not None
        authority = None if settings.tls_client_ca is None else settings.tls_client_ca.read_bytes()
        paths = (settings.tls_key or settings.tls_certificate, settings.tls_certificate)

        def read() -> grpc.ServerCertificateConfiguration:
            key, chain = (path.read_bytes() for path in paths)
            return grpc.ssl_server_certificate_configuration([(key, chain)], authority)

        return grpc.dynamic_ssl_server_credentials(read(), read, authority is not None)


def _route(path: str, entry: Entry) -> Route:
    def unreachable(request: Request) -> Response:
        raise AssertionError(path)

    return Route("POST", path, unreachable, entry.scope, f"gRPC: {path.rpartition('/')[2]}", always=entry.always)


def _request(details: grpc.HandlerCallDetails) -> Request:
    headers = {
        name.encode(): value if isinstance(value, bytes) else value.encode("latin-1", "replace")
        for name, value in details.invocation_metadata
    }
    request = Request(b"POST", details.method.encode(), headers, "")
    request.arrived_ns = time.monotonic_ns()
    return request


def _said(response: Response) -> dict[str, Any]:
    assert isinstance(response.body, bytes)
    content: dict[str, Any] = orjson.loads(response.body)
    return content


def _trailing(response: Response) -> tuple[tuple[str, str], ...]:
    """What stands on every answer, and when to try again: after the message, as gRPC has it."""
    lines = [line.split(": ", 1) for line in response.lines.decode("latin-1").splitlines()]
    lines += [[name.decode(), value.decode()] for name, value in response.headers if name == b"retry-after"]
    return tuple((name, value) for name, value in lines)


async def _end(response: Response, context: Any) -> None:
    """End a call by its status; raises, as grpcio means it."""
    said = _said(response)
    trailing = (*_trailing(response), ("modelserve-code", said["code"]))
    await context.abort(_CODES.get(response.status, grpc.StatusCode.INTERNAL), said["error"], trailing)
