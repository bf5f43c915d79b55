"""The Open Inference Protocol as a client speaks it: requests and replies in binary, a signature out of metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import httpx

from modelserve import wire
from modelserve.bundle.manifest import signature_from_json
from modelserve.errors import SignatureError, WireError
from modelserve.tensors import OIP_DATATYPES, Signature, TensorSpec

HEADER_LENGTH = "Inference-Header-Content-Length"
_DTYPES = {oip: name for name, oip in OIP_DATATYPES.items()}


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


def reply(answer: httpx.Response) -> wire.Reply:
    """The reply in an answer.

    Raises:
        WireError: its header is longer than the whole.
    """
    content = answer.content
    length = answer.headers.get(HEADER_LENGTH)
    if length is None:  # nothing of it is binary
        return wire.Reply(content, memoryview(b""))
    if not length.isdecimal() or int(length) > len(content):
        raise WireError(f"The answer's header has {length} bytes, the whole answer {len(content)}.")
    return wire.Reply(content[: int(length)], memoryview(content)[int(length) :])


def signature(metadata: Mapping[str, Any]) -> Signature:
    """What a model takes and gives, by its metadata; our own servers add what the protocol has no words for.

    Raises:
        WireError: it is no metadata.
    """
    try:
        parameters = metadata.get("parameters") or {}
        if isinstance(parameters.get("signature"), dict):
            return signature_from_json(parameters["signature"])
        inputs = tuple(_spec(entry) for entry in metadata["inputs"])
        return Signature(inputs, tuple(_spec(entry) for entry in metadata["outputs"]))
    except (KeyError, TypeError, AttributeError, SignatureError) as error:
        raise WireError(f"The server's metadata do not describe a model ({error!r}).") from error


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    shape = [int(size) for size in entry["shape"]]
    named = ["batch" if axis == 0 else f"{entry['name']}_{axis}" for axis in range(len(shape))]
    axes = tuple(name if size < 0 else size for name, size in zip(named, shape, strict=True))
    return TensorSpec(entry["name"], _DTYPES.get(entry["datatype"], entry["datatype"]), axes)
