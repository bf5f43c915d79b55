"""The REST front: paths by the library's own templates; predictions' bodies go through untouched.

Faults and errors look here as the service sends them: {"error": {"code": 409, "status": "ABORTED", "message": "..."}}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.api_core import exceptions as google_errors
from google.protobuf import json_format

from modelserve.standin.faults import BrokenOff, LostAnswer
from modelserve.standin.loopback import Answered, Broken, Exchange
from modelserve_vertex.rehearsal.cloud import VertexCloud
from modelserve_vertex.rehearsal.methods import STREAM, HttpRule, Method, match
from modelserve_vertex.rehearsal.operations import plain
from modelserve_vertex.rehearsal.pieces import broken_off, cutting

_JSON = {"content-type": "application/json; charset=UTF-8"}
#: What a peered network asks.
_PRIVATE = re.compile(r"/v1/models/(?P<id>\d+):predict")
_RAW = {"RawPredict", STREAM}
#: Of the query: how the answer is to look, and who asks.
_NOT_FIELDS = {"key", "alt", "prettyPrint"}


class RestFront:
    """Answers what an unmodified client sends."""

    def __init__(self, cloud: VertexCloud) -> None:
        self._cloud = cloud

    def __call__(self, exchange: Exchange) -> Answered:
        try:
            operation, work = self._found(exchange)
            fault = self._cloud.meet(operation)
            answered = work()
        except google_errors.GoogleAPICallError as error:
            return _failed(error)
        except json_format.ParseError as error:
            return _failed(google_errors.InvalidArgument(f"Invalid JSON payload received. {error}"))
        if isinstance(fault, LostAnswer):
            raise Broken
        self._cloud.meet_after(fault)
        if answered.pieces is None:
            return answered
        pieces = broken_off(answered.pieces) if isinstance(fault, BrokenOff) else answered.pieces
        return replace(answered, pieces=cutting(pieces))

    def _found(self, exchange: Exchange) -> tuple[str, Callable[[], Answered]]:
        """The operation that is meant, and how it is answered."""
        storage, neighbours = self._cloud.storage, self._cloud.neighbours
        if (operation := storage.operation(exchange)) is not None:
            return operation, lambda: storage.answer(exchange)
        if (operation := neighbours.operation(exchange)) is not None:
            return operation, lambda: neighbours.answer(exchange)
        if (private := _PRIVATE.fullmatch(exchange.path)) is not None:
            return "RawPredict", lambda: self._raw(self._cloud.endpoints.private(private["id"]).name, exchange)
        hit = match(exchange.method, exchange.path)
        if hit is None:
            raise google_errors.NotFound(f"There is no {exchange.method} {exchange.path}.")
        method, rule, fields = hit
        if method.name in _RAW:
            return method.name, lambda: self._raw(fields["endpoint"], exchange, streams=method.name == STREAM)
        return method.name, lambda: self._typed(method, rule, fields, exchange)

    def _raw(self, endpoint: str, exchange: Exchange, *, streams: bool = False) -> Answered:
        content_type = exchange.headers.get("content-type", "application/octet-stream")
        return self._cloud.door.raw(endpoint, exchange.body, content_type, _host(exchange), streams=streams)

    def _typed(self, method: Method, rule: HttpRule, fields: dict[str, str], exchange: Exchange) -> Answered:
        request = method.wrapped(_message(method, rule, fields, exchange))
        if method.name == "Predict":
            answer = self._cloud.door.predict(request, _host(exchange))
        else:
            answer = self._cloud.call(method.name, request)
        return Answered(200, json_format.MessageToJson(plain(answer)).encode(), _JSON)


def _message(method: Method, rule: HttpRule, fields: dict[str, str], exchange: Exchange) -> Any:
    """The request, put together from body, query and path."""
    message = method.message()
    if rule.body and exchange.body:
        json_format.Parse(exchange.body, message if rule.body == "*" else getattr(message, rule.body))
    for name, values in exchange.query.items():
        if name not in _NOT_FIELDS and not name.startswith("$"):
            json_format.ParseDict(_nested(name, values[-1]), message)
    for name, value in fields.items():
        *outer, last = name.split(".")
        target = message
        for part in outer:
            target = getattr(target, part)
        setattr(target, last, value)
    return message


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    for name in reversed(dotted.split(".")):
        value = {name: value}
    found: dict[str, Any] = value
    return found


def _host(exchange: Exchange) -> str:
    return exchange.headers.get("host", "").partition(":")[0]


def _failed(error: google_errors.GoogleAPICallError) -> Answered:
    status = error.grpc_status_code.name if error.grpc_status_code else "UNKNOWN"
    code = int(error.code or 500)
    content = {"error": {"code": code, "message": error.message, "status": status}}
    return Answered(code, json.dumps(content).encode(), _JSON)
