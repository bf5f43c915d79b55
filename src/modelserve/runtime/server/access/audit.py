"""The record of who did what, when, and what came of it. Never what was asked or answered."""

from __future__ import annotations

import logging

from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.routes import Route, Scope

_log = logging.getLogger("modelserve.audit")
_DENIED = {401, 403}


class Audit:
    """Writes a line for every act of administration, and for everything that was denied."""

    def answered(self, request: Request, response: Response, elapsed_ns: int) -> None:
        route: Route | None = request.route
        if route is None or (route.scope is not Scope.ADMIN and response.status not in _DENIED):
            return
        _log.info(
            "%s",
            "denied" if response.status in _DENIED else "done" if response.status < 400 else "failed",
            extra={
                "caller": getattr(request.caller, "name", "unknown"),
                "peer": request.peer,
                "method": request.method.decode("latin-1"),
                "route": route.pattern,
                "arguments": list(request.arguments),
                "status": response.status,
                "request_id": request.id.decode("ascii", "replace"),
            },
        )
