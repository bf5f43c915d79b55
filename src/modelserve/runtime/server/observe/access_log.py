"""A log line for every answer. Never what was asked or answered, and never a query, which may hold secrets."""

from __future__ import annotations

import logging

from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.routes import Route

_log = logging.getLogger("modelserve.access")


class AccessLog:
    """Writes the lines; as JSON, each fact is a field of its own."""

    def answered(self, request: Request, response: Response, elapsed_ns: int) -> None:
        route: Route | None = request.route
        method = request.method.decode("latin-1")
        pattern = "unknown" if route is None else route.pattern
        facts = {
            "request_id": request.id.decode("ascii", "replace"),
            "caller": getattr(request.caller, "name", "unknown"),
            "peer": request.peer,
            "method": method,
            "route": pattern,
            "arguments": list(request.arguments),
            "status": response.status,
            "body_bytes": len(request.body),
            "duration_ms": round(elapsed_ns / 1e6, 3),
        }
        timing = request.timing
        if timing is not None:
            facts |= {
                "queue_ms": round(timing.queue_ns / 1e6, 3),
                "compute_ms": round(timing.compute_ns / 1e6, 3),
                "joined": timing.joined,
            }
        if request.trace_id:
            facts["trace_id"] = request.trace_id
        _log.info("%s %s %d", method, pattern, response.status, extra=facts)
