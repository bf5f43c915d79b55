"""Whether the process lives, and whether it should be sent requests."""

from __future__ import annotations

import orjson

from modelserve.runtime.server.http.messages import NOTHING, Request, Response
from modelserve.runtime.server.life import Life
from modelserve.runtime.server.models.repository import Repository
from modelserve.runtime.server.problems import problem
from modelserve.runtime.server.routes import Handler, Route, Scope

#: Paths that answer 200 when the server is ready and 503 when it is not.
READY_PATHS = ("/readyz", "/healthz", "/health", "/ping", "/v2/health/ready")
LIVE_PATHS = ("/livez", "/v2/health/live")


def live(request: Request) -> Response:
    """That the process lives: it answers."""
    return Response(orjson.dumps({"live": True}))


def ready(life: Life) -> Handler:
    """Whether requests should be sent, as a handler."""

    def answer(request: Request) -> Response:
        why = life.why_not_ready()
        if why:
            return problem(503, f"Not ready: {why}.", code="not_ready", retry_s=1)
        return Response(orjson.dumps({"ready": True}))

    return answer


def routes(life: Life, repository: Repository) -> list[Route]:
    """The paths of health."""

    def model_ready(request: Request) -> Response:
        name, *version = request.arguments
        is_ready = repository.find(name, *version).is_ready
        return Response(NOTHING) if is_ready else problem(503, f"Model {name!r} has no worker.", code="not_ready")

    found = [Route("GET", path, live, Scope.OPEN, "Whether the process lives", always=True) for path in LIVE_PATHS]
    found += [
        Route("GET", path, ready(life), Scope.OPEN, "Whether requests should be sent", always=True)
        for path in READY_PATHS
    ]
    found += [
        Route("GET", path, model_ready, Scope.PREDICT, "Whether a model answers")
        for path in ("/v2/models/{name}/ready", "/v2/models/{name}/versions/{version}/ready")
    ]
    return found
