"""Metrics for Prometheus."""

from __future__ import annotations

import asyncio

from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.observe.metrics import Metrics
from modelserve.runtime.server.routes import Route, Scope


def routes(metrics: Metrics) -> list[Route]:
    """The path that is scraped."""

    async def scrape(request: Request) -> Response:
        accept = request.headers.get(b"accept", b"").decode("latin-1")
        # Looking at the workers' memory takes milliseconds, for which no request should wait.
        content, kind = await asyncio.get_running_loop().run_in_executor(None, metrics.write, accept)
        return Response(content, kind.encode())

    return [Route("GET", "/metrics", scrape, Scope.METRICS, "Metrics for Prometheus", always=True)]
