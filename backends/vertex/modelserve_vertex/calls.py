"""One endpoint's answers: rawPredict with the binary wire, over the pooled connections of one thread.

Body and Content-Type are carried untouched, other headers may not be; so the length of the message's header stands in
the type. Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
from typing import Any

from google.auth.transport.requests import Request as AuthRequest

from modelserve.backend import Reply, ReplyFuture, Request
from modelserve.backend.oip import sized_reply, sized_request
from modelserve.backend.transport import Transport, pooled_client
from modelserve_vertex.errors import asking
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.refusal import refusal
from modelserve_vertex.way import Way


class Calls:
    """Asks one endpoint."""

    def __init__(self, way: Way, credentials: Any, options: VertexOptions) -> None:
        self._path = way.path
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
        answer = await self._transport.ask("POST", self._path, content=content, headers=headers, timeout_s=timeout_s)
        if not answer.is_success:
            raise refusal(answer, f"POST {self._path}")
        return sized_reply(answer.headers.get("content-type", ""), answer.content)

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
