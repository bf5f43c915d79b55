"""A raw ASGI application, for uvicorn and for granian."""

from __future__ import annotations

from typing import Any

from answering import BINARY, Answering

_answering: Answering | None = None


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    global _answering  # one pool for the process
    if scope["type"] != "http":
        return
    if _answering is None:
        _answering = Answering()
    binary = any(name == b"content-type" and value == BINARY for name, value in scope["headers"])
    parts, more = [], True
    while more:
        event = await receive()
        parts.append(event.get("body", b""))
        more = event.get("more_body", False)
    answer = await _answering.answer(b"".join(parts), binary=binary)
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
