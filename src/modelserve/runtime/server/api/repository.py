"""The protocol's model repository extension: which models there are, load and unload; and changing one that runs."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from modelserve.errors import ConfigError, InvalidScaleError
from modelserve.runtime.server.formats.values import parse
from modelserve.runtime.server.http.messages import NOTHING, Request, Response
from modelserve.runtime.server.models.repository import Entry, Repository
from modelserve.runtime.server.models.served import ServedModel
from modelserve.runtime.server.models.sizing import Sizing
from modelserve.runtime.server.routes import Route, Scope

#: What is said to a load request that brings a model's files, as other servers take it.
NO_PARAMETERS = "Loading takes no parameters here. Put the bundle into the server's folder of models first."
_BASE = "/v2/repository/models/{name}"


class _Index(msgspec.Struct):
    ready: bool = False


class _Scale(msgspec.Struct, forbid_unknown_fields=True):
    workers: int | None = None
    minimum: int = 1
    maximum: int | None = None
    target_inflight: float | None = None


def routes(repository: Repository) -> list[Route]:
    """The paths of administration."""

    def listed(request: Request) -> Response:
        only_ready = parse(request.body, _Index).ready if request.body else False
        return Response(orjson.dumps(index(repository, only_ready=only_ready)))

    async def load(request: Request) -> Response:
        _check_parameters(request)
        await repository.load(*request.arguments)
        return Response(b"{}")

    async def unload(request: Request) -> Response:
        await repository.unload(*request.arguments)
        return Response(b"{}")

    async def scale(request: Request) -> Response:
        served = repository.find(*request.arguments)
        await repository.scale(served, _sizing(parse(request.body, _Scale)))
        return Response(NOTHING)

    def status(request: Request) -> Response:
        return Response(orjson.dumps(_status(repository.find(*request.arguments))))

    def logs(request: Request) -> Response:
        return Response(orjson.dumps({"lines": repository.find(*request.arguments).pool.logs()}))

    found = [
        Route("POST", "/v2/repository/index", listed, Scope.ADMIN, "Which models there are"),
        Route("GET", "/v2/repository/index", listed, Scope.ADMIN, "Which models there are"),
    ]
    found += [
        Route("GET", path, status, Scope.METRICS, "How a model's workers are")
        for path in ("/v2/models/{name}/status", "/v2/models/{name}/versions/{version}/status")
    ]
    for base in (_BASE, f"{_BASE}/versions/{{version}}"):
        found += [
            Route("GET", f"{base}/logs", logs, Scope.ADMIN, "What a model's workers wrote"),
            Route("POST", f"{base}/load", load, Scope.ADMIN, "Load a model, or its newer bundle"),
            Route("POST", f"{base}/unload", unload, Scope.ADMIN, "Unload a model"),
            Route("POST", f"{base}/scale", scale, Scope.ADMIN, "Have so many workers for a model"),
        ]
    return found


def index(repository: Repository, *, only_ready: bool) -> list[dict[str, str]]:
    """Every model and its state, or those that are ready."""
    return [_line(entry) for entry in repository.entries() if entry.served is not None or not only_ready]


def _sizing(asked: _Scale) -> Sizing:
    if asked.workers is not None:
        if asked.maximum is not None:
            raise InvalidScaleError("Scale takes workers, or minimum and maximum; not both.")
        return Sizing(asked.workers, asked.workers)
    if asked.maximum is None:
        raise InvalidScaleError('Scale takes {"workers": 4}, or {"minimum": 1, "maximum": 8, "target_inflight": 4}.')
    return Sizing(asked.minimum, asked.maximum, asked.target_inflight)


def _line(entry: Entry) -> dict[str, str]:
    return {
        "name": entry.place.name,
        "version": entry.place.version,
        "state": entry.state.value,
        "reason": entry.reason,
    }


def _status(served: ServedModel) -> dict[str, Any]:
    status = served.status()
    return {
        "name": served.name,
        "version": served.version,
        "digest": served.bundle.digest,
        "scale": None if served.sizing is None else msgspec.to_builtins(served.sizing),
        "wanted": status.wanted,
        "ready": status.ready,
        "inflight": served.inflight,
        "restarts": status.restarts,
        "workers": [
            {
                "pid": worker.pid,
                "stage": worker.stage.value,
                "runs": worker.runs,
                "rows": worker.rows,
                "private_bytes": worker.private_bytes,
                "shared_bytes": worker.shared_bytes,
            }
            for worker in status.workers
        ],
    }


def _check_parameters(request: Request) -> None:
    """A load request may bring a model's files in other servers; here a bundle is what lies in the folder."""
    content = parse(request.body) if request.body else {}
    if isinstance(content, dict) and content.get("parameters"):
        raise ConfigError(NO_PARAMETERS)
