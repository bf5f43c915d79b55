"""An RSGI application, granian's own interface."""

from __future__ import annotations

from typing import Any

from answering import BINARY, Answering

_answering: Answering | None = None


async def app(scope: Any, proto: Any) -> None:
    global _answering  # one pool for the process
    if _answering is None:
        _answering = Answering()
    binary = scope.headers.get("content-type") == BINARY.decode()
    answer = await _answering.answer(await proto(), binary=binary)
    proto.response_bytes(200, [], answer)
