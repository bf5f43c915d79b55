"""The Open Inference Protocol v2: what a server and a model say of themselves, and inference."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import orjson

from modelserve.bundle.manifest import signature_to_json
from modelserve.runtime.server.formats import oip
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.models.repository import Repository
from modelserve.runtime.server.models.served import ServedModel
from modelserve.runtime.server.routes import Route, Scope

EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics"]
PLATFORM = "onnxruntime_onnx"
SERVER = "modelserve"


def routes(repository: Repository, server_version: str) -> list[Route]:
    """The paths of the protocol, without health and repository."""

    def server(request: Request) -> Response:
        content = {"name": SERVER, "version": server_version, "extensions": EXTENSIONS}
        return Response(orjson.dumps(content))

    def model(request: Request) -> Response:
        return Response(orjson.dumps(metadata(repository.find(*request.arguments), repository)))

    def config(request: Request) -> Response:
        return Response(orjson.dumps(configuration(repository.find(*request.arguments))))

    # The model's own coroutine is handed on rather than awaited: each one around it costs a request some microseconds.
    def infer(request: Request) -> Coroutine[Any, Any, Response]:
        served = repository.ready(*request.arguments)
        return load_and_ask(request) if served is None else ask(served, request)

    async def load_and_ask(request: Request) -> Response:
        return await ask(await repository.demand(*request.arguments), request)

    def ask(served: ServedModel, request: Request) -> Coroutine[Any, Any, Response]:
        length = request.headers.get(oip.HEADER_LENGTH)
        return served.ask(lambda model: oip.read(request.body, length, model), request)

    def stats(request: Request) -> Response:
        chosen = [repository.find(*request.arguments)] if request.arguments else repository.served()
        return Response(orjson.dumps({"model_stats": [statistics(served) for served in chosen]}))

    found = [Route("GET", "/v2", server, Scope.OPEN, "What this server is", always=True)]
    for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        found += [
            Route("GET", base, model, Scope.PREDICT, "What a model takes and gives"),
            Route("GET", f"{base}/config", config, Scope.PREDICT, "How a model is run"),
            Route("POST", f"{base}/infer", infer, Scope.PREDICT, "Ask a model"),
            Route("GET", f"{base}/stats", stats, Scope.METRICS, "What a model has done so far"),
        ]
    return [*found, Route("GET", "/v2/models/stats", stats, Scope.METRICS, "What all models have done so far")]


def metadata(served: ServedModel, repository: Repository) -> dict[str, Any]:
    """What a model says of itself."""
    signature = served.signature
    return {
        "name": served.name,
        "versions": [entry.place.version for entry in repository.entries() if entry.place.name == served.name],
        "platform": PLATFORM,
        "inputs": [oip.spec_json(spec) for spec in signature.inputs],
        "outputs": [oip.spec_json(spec) for spec in signature.outputs],
        "parameters": {
            "digest": served.bundle.digest,
            "primary_output": signature.primary,
            "rows_independent": served.bundle.rows_independent,
            # What the protocol has no words for: names of columns and axes, and whether NaN is taken.
            "signature": signature_to_json(signature),
        },
    }


def configuration(served: ServedModel) -> dict[str, Any]:
    """A model's configuration in the words that clients of Triton know; only what has a meaning here."""
    signature = served.signature

    def tensors(specs: Any) -> list[dict[str, Any]]:
        described = [oip.spec_json(spec) for spec in specs]
        types = {"BYTES": "STRING"}
        return [
            {
                "name": one["name"],
                "data_type": f"TYPE_{types.get(one['datatype'], one['datatype'])}",
                "dims": one["shape"][1:] if signature.is_batched else one["shape"],
            }
            for one in described
        ]

    return {
        "name": served.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": (1 << 16) if signature.is_batched else 0,
        "input": tensors(signature.inputs),
        "output": tensors(signature.outputs),
    }


def statistics(served: ServedModel) -> dict[str, Any]:
    """A model's statistics in the shape of the protocol's extension; times in nanoseconds."""
    counts = served.statistics
    return {
        "name": served.name,
        "version": served.version,
        "last_inference": counts.last_ms,
        "inference_count": counts.rows,
        "execution_count": sum(worker.runs for worker in served.status().workers),
        "inference_stats": {
            "success": {"count": counts.succeeded, "ns": counts.whole.sum_ns},
            "fail": {"count": counts.failed, "ns": counts.failed_ns},
            "queue": {"count": counts.succeeded, "ns": counts.queue.sum_ns},
            "compute_infer": {"count": counts.succeeded, "ns": counts.compute.sum_ns},
        },
        "batch_stats": [],
    }
