"""The paths that a cloud's contract asks for. They are open: nobody but that cloud's door reaches the container."""

from __future__ import annotations

from dataclasses import replace

import orjson

from modelserve.runtime.server.api import health
from modelserve.runtime.server.api.predictions import Predictions
from modelserve.runtime.server.contracts import Contract
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.life import Life
from modelserve.runtime.server.routes import Route, Scope


def routes(contract: Contract, life: Life, predictions: Predictions) -> list[Route]:
    """The contract's paths; where it names none of our own, they come beside those."""
    found = [
        Route("GET", path, health.ready(life), Scope.OPEN, "Whether requests should be sent", always=True)
        for path in contract.ready_paths
    ]
    found += [
        Route("GET", path, health.live, Scope.OPEN, "Whether the process lives", always=True)
        for path in contract.live_paths
    ]
    found += predictions.routes(contract.predict_paths)
    parameters = contract.details.get("execution_parameters")
    if parameters is not None:

        def execution_parameters(request: Request) -> Response:
            return Response(orjson.dumps({**parameters, "MaxConcurrentTransforms": 2}))

        found.append(Route("GET", "/execution-parameters", execution_parameters, Scope.OPEN, "How to send batches"))
    return [replace(route, contract=True) for route in found]
