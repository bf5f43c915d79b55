"""Requests and replies of the Open Inference Protocol as one body, the length of its header told beside it.

POST .../infer          Inference-Header-Content-Length: n
POST /invocations       Content-Type: application/vnd.sagemaker-triton.binary+json;json-header-size=n

The second is for clouds that let no header of ours pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache

from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    DeadlineError,
    DeploymentClosedError,
    DeploymentNotFoundError,
    InputError,
    ModelRunError,
    ModelServeError,
    NotReadyError,
    OverloadedError,
    WireError,
    by_code,
)
from modelserve.wire import Message, Reply

HEADER_LENGTH = "Inference-Header-Content-Length"
SIZED = "application/vnd.sagemaker-triton.binary+json"
#: Sent to a container's predict path instead of a question: it answers with the model's metadata.
DESCRIBE = "application/vnd.modelserve.describe+json"

#: What servers of other makes mean, which send no code.
_BY_STATUS: Mapping[int, type[ModelServeError]] = {
    400: InputError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: DeploymentNotFoundError,
    408: DeadlineError,
    413: InputError,
    415: WireError,
    422: ModelRunError,
    429: OverloadedError,
    503: NotReadyError,
    504: DeadlineError,
}


@lru_cache(maxsize=512)
def request_header(header: bytes, primary: str) -> bytes:
    """A request's header with its outputs spelt out, in binary: without that a server answers all, as JSON."""
    try:
        content = json.loads(header)
        named = [output["name"] for output in content.get("outputs") or [{"name": primary}]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return header  # the server says what is wrong with it
    content["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in named]
    return json.dumps(content, separators=(",", ":")).encode()


def sized_request(message: Message, primary: str) -> tuple[str, bytes]:
    """The media type and the body of a request, for clouds that let only the media type pass."""
    header = request_header(message.header, primary)
    return f"{SIZED};json-header-size={len(header)}", b"".join((header, *message.buffers))


def sized_reply(media_type: str, content: bytes) -> Reply:
    """The reply in a body of that media type.

    Raises:
        WireError: its header is longer than the whole.
    """
    return reply(content, sized_header(media_type))


def sized_header(media_type: str) -> str | None:
    """The header's length as the media type tells it; None where nothing of the body is binary."""
    for parameter in media_type.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "json-header-size":
            return value.strip()
    return None


def reply(content: bytes, header_length: str | None) -> Reply:
    """The reply in a body whose header has that length; None where nothing of it is binary.

    Raises:
        WireError: its header is longer than the whole.
    """
    if header_length is None:
        return Reply(content, memoryview(b""))
    if not header_length.isdecimal() or int(header_length) > len(content):
        raise WireError(f"The answer's header has {header_length} bytes, the whole answer {len(content)}.")
    return Reply(content[: int(header_length)], memoryview(content)[int(header_length) :])


def error_of(status: int, content: bytes | str, doing: str, *, retry_after: str = "1") -> ModelServeError:
    """The error that an answer other than 2xx stands for; our own runtime says its code."""
    text, code = _said(content)
    kind: Callable[..., ModelServeError] = by_code(code) if code else _BY_STATUS.get(status, BackendError)
    if kind in {ModelServeError, DeploymentClosedError}:
        # A code of HTTP's own, or a server that ends: what its status says is nearer than a word of ours.
        kind = _BY_STATUS.get(status, BackendError)
    message = text or f"{doing}: the server answered {status}."
    if kind is OverloadedError:
        return OverloadedError(message, retry_after_s=float(retry_after) if retry_after.isdecimal() else 1.0)
    return kind(message)


def _said(content: bytes | str) -> tuple[str, str]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(parsed, dict):
        return "", ""
    return str(parsed.get("error") or parsed.get("detail") or ""), str(parsed.get("code") or "")
