"""One endpoint's answers: rawPredict, or streamRawPredict, with the binary wire, over one thread's pooled connections.

Body and Content-Type are carried untouched, other headers may not be; so the length of the message's header stands in
the type. Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from google.auth.transport.requests import Request as AuthRequest

from modelserve.backend import Reply, ReplyFuture, Request
from modelserve.backend.oip import sized_reply, sized_request
from modelserve.backend.transport import Transport, pooled_client
from modelserve_vertex.errors import asking
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.refusal import refusal
from modelserve_vertex.streamed import joined
from modelserve_vertex.way import Way


class Calls:
    """Asks one endpoint."""

    def __init__(self, way: Way, credentials: Any, options: VertexOptions) -> None:
        self._path = way.path
        self._doing = f"POST {way.path}"
        self._streams = options.streamed_answers
        self._credentials = credentials if way.has_token else None
        settings = {"headers": {"host": way.host} if way.host else {}, "verify": options.verify_certificate}
        self._transport = Transport(
            lambda: pooled_client(way.address, connections=options.connections, **settings),
            server=way.address,
            timeout_s=options.inference_timeout_s,
        )

    def submit(self, request: Request, primary: str) -> ReplyFuture:
        media_type, content = sized_request(request.message, primary)
        return self._transport.start(self._ask(media_type, content, request.timeout_s))

    def close(self) -> None:
        self._transport.close()

    async def _ask(self, media_type: str, content: bytes, timeout_s: float) -> Reply:
        headers = {"content-type": media_type, **await self._authorization()}
        sent: dict[str, Any] = {"content": content, "headers": headers, "timeout_s": timeout_s}
        if self._streams:
            return await self._transport.stream("POST", self._path, self._joined, **sent)
        answer = self._successful(await self._transport.ask("POST", self._path, **sent))
        return sized_reply(answer.headers.get("content-type", ""), answer.content)

    async def _joined(self, answer: httpx.Response) -> Reply:
        if not answer.is_success:
            await answer.aread()
        return await joined(self._successful(answer), self._doing)

    def _successful(self, answer: httpx.Response) -> httpx.Response:
        if not answer.is_success:
            raise refusal(answer, self._doing)
        return answer

    async def _authorization(self) -> dict[str, str]:
        """The token, renewed in another thread when it is about to end."""
        credentials = self._credentials
        if credentials is None:
            return {}
        if not credentials.valid:
            with asking("Renewing Google's access token"):
                await asyncio.get_running_loop().run_in_executor(None, _renew, credentials)
        headers: dict[str, str] = {}
        credentials.apply(headers)
        return headers


def _renew(credentials: Any) -> None:
    credentials.refresh(AuthRequest())
