"""The gRPC front: every method of the installed library, by its own paths and (de)serialisers; no generated code.

With it the vendor's gRPC clients see what the backend, which talks REST, has deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc
from google.api import httpbody_pb2
from google.api_core import exceptions as google_errors

from modelserve.standin.faults import BrokenOff, LostAnswer
from modelserve.standin.loopback import Answered
from modelserve_vertex.rehearsal.cloud import VertexCloud
from modelserve_vertex.rehearsal.methods import STREAM, Method, methods
from modelserve_vertex.rehearsal.operations import plain
from modelserve_vertex.rehearsal.pieces import broken_off

_THREADS = 16
#: In the metadata of a call to a dedicated endpoint, whose host gRPC clients do not name.
_ENDPOINT_ID = "x-vertex-ai-endpoint-id"
_BOUNDLESS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_BY_HTTP_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class GrpcServer:
    """Answers gRPC on 127.0.0.1 until the end of `with`."""

    def __init__(self, cloud: VertexCloud) -> None:
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), options=_BOUNDLESS)
        self._server.add_generic_rpc_handlers((_Handler(cloud),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # its class is untyped
    def __init__(self, cloud: VertexCloud) -> None:
        self._cloud = cloud

    def service(self, details: Any) -> Any:
        method = methods().get(details.method)
        if method is None:
            return None
        metadata = dict(details.invocation_metadata)
        answer = self._answering(method, metadata)
        if method.is_streamed:
            return grpc.unary_stream_rpc_method_handler(_as_stream(answer), _reader(method), _written)
        return grpc.unary_unary_rpc_method_handler(answer, _reader(method), _written)

    def _answering(self, method: Method, metadata: dict[str, str]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, context: Any) -> Any:
            try:
                fault = self._cloud.meet(method.name)
                found = self._called(method.name, request, metadata)
            except google_errors.GoogleAPICallError as error:
                context.abort(error.grpc_status_code or grpc.StatusCode.UNKNOWN, error.message)
            if isinstance(fault, LostAnswer):
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            self._cloud.meet_after(fault)
            return broken_off(found) if isinstance(fault, BrokenOff) else found

        return answer

    def _called(self, name: str, request: Any, metadata: dict[str, str]) -> Any:
        if name in {"RawPredict", STREAM}:
            host, body = self._host(request.endpoint, metadata), request.http_body
            door = self._cloud.door
            return _as_bodies(door.raw(request.endpoint, body.data, body.content_type, host, streams=name == STREAM))
        if name == "Predict":
            return self._cloud.door.predict(request, self._host(request.endpoint, metadata))
        return self._cloud.call(name, request)

    def _host(self, endpoint: str, metadata: dict[str, str]) -> str:
        """The name that REST would have sent: the endpoint's own where the metadata say so."""
        if metadata.get(_ENDPOINT_ID) != endpoint.rpartition("/")[2]:
            return "127.0.0.1"
        return str(self._cloud.endpoints.require(endpoint).dedicated_endpoint_dns)


def _reader(method: Method) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        return method.wrapped(method.message.FromString(content))

    return read


def _written(message: Any) -> bytes:
    content: bytes = plain(message).SerializeToString()
    return content


def _as_stream(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Iterator[Any]]:
    def answers(request: Any, context: Any) -> Iterator[Any]:
        try:
            yield from answer(request, context)
        except google_errors.GoogleAPICallError as error:
            context.abort(error.grpc_status_code or grpc.StatusCode.UNKNOWN, error.message)

    return answers


def _as_bodies(answered: Answered) -> Any:
    """The container's answer as one message, or as one for each piece; over gRPC its status is that of the call."""
    if answered.status >= 400:
        code = _BY_HTTP_STATUS.get(answered.status, grpc.StatusCode.INTERNAL)
        raise google_errors.from_grpc_status(code, answered.body.decode(errors="replace"))
    kind = answered.headers.get("content-type", "")
    if answered.pieces is None:
        return httpbody_pb2.HttpBody(content_type=kind, data=answered.body)
    return (httpbody_pb2.HttpBody(content_type=kind, data=piece) for piece in answered.pieces)
