"""A request as one body, the length of its JSON part told in its media type: many clouds let no other header pass.

Content-Type: application/vnd.sagemaker-triton.binary+json;json-header-size=123

The Open Inference Protocol v2 with its binary extension; Triton speaks it like this on SageMaker.
"""

from __future__ import annotations

import json
from functools import lru_cache

from modelserve import wire
from modelserve.errors import WireError

_TYPE = "application/vnd.sagemaker-triton.binary+json"
_PARAMETER = "json-header-size"
#: Asked of a model instead of a question: what it takes and gives, as the protocol's metadata say it.
DESCRIBE = "application/vnd.modelserve.describe+json"


def content_type(header_bytes: int) -> str:
    """The media type of a body whose JSON part has so many bytes."""
    return f"{_TYPE};{_PARAMETER}={header_bytes}"


def request_content(message: wire.Message, primary: str) -> tuple[bytes, int]:
    """The body of a request, and how long its JSON part is. Without outputs of its own it asks for `primary`."""
    header = _spelt_out(message.header, primary)
    return b"".join((header, *message.buffers)), len(header)


def read_reply(media_type: str, content: bytes) -> wire.Reply:
    """The reply in an answer.

    Raises:
        WireError: its JSON part is longer than the whole.
    """
    length = _length(media_type)
    if length is None:  # nothing of it is binary
        return wire.Reply(content, memoryview(b""))
    if length > len(content):
        raise WireError(f"The answer's header has {length} bytes, the whole answer {len(content)}.")
    return wire.Reply(content[:length], memoryview(content)[length:])


def _length(media_type: str) -> int | None:
    for parameter in media_type.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == _PARAMETER:
            if not value.isdecimal():
                raise WireError(f"The answer's type {media_type!r} names no length of its JSON part.")
            return int(value)
    return None


@lru_cache(maxsize=512)
def _spelt_out(header: bytes, primary: str) -> bytes:
    """The header with its outputs named, in binary: without that a server answers with all of them, as JSON."""
    try:
        content = json.loads(header)
        named = [output["name"] for output in content.get("outputs") or [{"name": primary}]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return header  # the server says what is wrong with it
    content["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in named]
    return json.dumps(content, separators=(",", ":")).encode()
