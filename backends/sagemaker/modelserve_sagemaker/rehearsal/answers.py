"""How AWS answers, in the protocol of each service: JSON, or XML of two kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from modelserve.standin.loopback import Answered, Exchange

JSON = "application/x-amz-json-1.1"
_CREDENTIAL = re.compile(r"Credential=[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
_XML = {"sts", "iam", "sns", "monitoring"}


@dataclass(slots=True)
class AwsError(Exception):
    """A refusal in AWS's own words."""

    code: str
    message: str
    status: int = 400
    more: dict[str, Any] = field(default_factory=dict)


def invalid(message: str) -> AwsError:
    """What SageMaker says of most things."""
    return AwsError("ValidationException", message)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the service as its signature names it, and the operation."""

    service: str
    operation: str

    @property
    def name(self) -> str:
        return f"{self.service}.{self.operation}"


def call_of(exchange: Exchange) -> Call:
    """Which operation of which service this is."""
    found = _CREDENTIAL.search(exchange.headers.get("authorization", ""))
    service = found["service"] if found else "s3"
    target = exchange.headers.get("x-amz-target", "")
    if target:
        return Call("logs" if target.startswith("Logs_") else service, target.rpartition(".")[2])
    if service in _XML:
        action = parse_qs(exchange.body.decode("latin-1")).get("Action", [""])
        return Call(service, action[0])
    if service == "s3":
        return Call(service, "".join([exchange.method, *sorted(set(exchange.query) & _SUBRESOURCES)]))
    if service == "sagemaker":
        return Call("sagemaker-runtime", _RUNTIME.get(exchange.path.rpartition("/")[2], "Unknown"))
    return Call(service, exchange.path)


def answered(content: Any) -> Answered:
    """An answer of the JSON protocol."""
    return Answered(200, json.dumps(content, default=_plain).encode(), {"content-type": JSON})


def refused(error: AwsError, call: Call, exchange: Exchange) -> Answered:
    """A refusal, as the service writes it."""
    if exchange.method == "HEAD":
        return Answered(error.status)
    if call.service == "s3":
        return _xml(error, "<Error>{}</Error>")
    if call.service in _XML:
        return _xml(error, "<ErrorResponse><Error><Type>Sender</Type>{}</Error></ErrorResponse>")
    content = {"__type": error.code, "message": error.message, "Message": error.message, **error.more}
    headers = {"content-type": JSON, "x-amzn-errortype": error.code}
    return Answered(error.status, json.dumps(content).encode(), headers)


def page(found: Sequence[Mapping[str, Any]], key: str, name_key: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """One page of a list, newest first, as AWS sorts it."""
    contains = request.get("NameContains", "")
    matching = [entry for entry in reversed(found) if contains in entry[name_key]]
    start, size = int(request.get("NextToken", 0)), request.get("MaxResults", 10)
    more = {"NextToken": str(start + size)} if start + size < len(matching) else {}
    return {key: matching[start : start + size], **more}


def _xml(error: AwsError, around: str) -> Answered:
    inner = f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
    return Answered(error.status, around.format(inner).encode(), {"content-type": "application/xml"})


def _plain(value: Any) -> Any:
    return value.timestamp()  # the only kind beside JSON's that is kept here: times


_SUBRESOURCES = {"location", "uploads", "uploadId", "delete", "list-type", "tagging", "encryption"}
_RUNTIME = {
    "invocations": "InvokeEndpoint",
    "async-invocations": "InvokeEndpointAsync",
    "invocations-response-stream": "InvokeEndpointWithResponseStream",
}
