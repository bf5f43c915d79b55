"""Requests whose tensors go through untouched: raw bytes in, raw bytes out.

client's JSON + bytes ──known JSON──► workers' header + the same bytes ──► reply ──► client's JSON + the same bytes

The workers speak the protocol's own binary form. A client that asks the same thing over and over sends the same JSON
each time, so what was found out about it once holds again. Only where the bytes themselves decide (text, truth values,
NaN where none may be) is every request read in full.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import orjson

from modelserve import wire
from modelserve.runtime.server.formats.question import Described, Question
from modelserve.runtime.server.http.messages import Response
from modelserve.tensors import Signature

OCTETS = b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
_LONGEST_JSON_BYTES = 2048
_MOST = 1024


class _Passage(NamedTuple):
    """What is known of one request's JSON."""

    header: bytes
    rows: int
    timeout_s: float | None
    size_bytes: int


class Relay:
    """The requests that were read before; the oldest are forgotten."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, str], _Passage] = {}

    def question(self, content: bytes, rest: memoryview, model: Described) -> Question[Response] | None:
        """The question, where this JSON is known and as many bytes follow it as the last time."""
        known = self._known.get((content, model.digest))
        if known is None or known.size_bytes != len(rest):
            return None
        message = wire.Message(known.header, (rest,))
        return Question(message, known.rows, lambda reply: answer(reply, model), known.timeout_s)

    def note(self, content: bytes, rest: memoryview, question: Question[Response], model: Described) -> None:
        """Remember what was read in full, of which `may_pass` is true."""
        if len(content) > _LONGEST_JSON_BYTES:
            return
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        header = question.message.header
        self._known[content, model.digest] = _Passage(header, question.rows, question.timeout_s, len(rest))


def may_pass(signature: Signature) -> bool:
    """Whether any bytes at all are values of a model's only input."""
    (spec,) = signature.inputs
    return spec.allows_nan and spec.dtype not in {"bool", "string"}


def answer(reply: wire.Reply, model: Described) -> Response:
    """The workers' reply as the client reads it."""
    header = _header(reply.header, model.name, model.version)
    return Response([header, reply.body], OCTETS, headers=((HEADER_LENGTH, b"%d" % len(header)),))


@lru_cache(maxsize=1024)
def _header(reply_header: bytes, name: str, version: str) -> bytes:
    described = orjson.loads(reply_header)["outputs"]
    return orjson.dumps({"model_name": name, "model_version": version, "outputs": described})
