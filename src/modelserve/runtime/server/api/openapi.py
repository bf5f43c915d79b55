"""The interface described by itself: OpenAPI 3.1, with each model's own tensors and a real example of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from modelserve.runtime.server.access.caller import ANYBODY, Caller
from modelserve.runtime.server.formats import oip
from modelserve.runtime.server.http.messages import JSON, PROBLEM, Request, Response
from modelserve.runtime.server.models.repository import Repository
from modelserve.runtime.server.models.served import ServedModel
from modelserve.runtime.server.routes import Route, Scope

_KINDS = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "O": "string"}
_PROBLEM = {
    "type": "object",
    "required": ["error", "status", "code"],
    "properties": {
        "error": {"type": "string"},
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
    },
}


def routes(described: Sequence[Route], repository: Repository, version: str) -> list[Route]:
    """The path of the description."""

    def describe(request: Request) -> Response:
        caller: Caller = request.caller or ANYBODY
        served = [model for model in repository.served() if caller.knows(model.name)]
        return Response(orjson.dumps(document(described, served, version)))

    return [Route("GET", "/openapi.json", describe, Scope.PREDICT, "This description")]


def document(described: Sequence[Route], models: Sequence[ServedModel], version: str) -> dict[str, Any]:
    """The description of these routes, and of each model's own."""
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        paths.setdefault(route.pattern, {}).setdefault(route.method.lower(), _operation(route))
    for served in models:
        paths[f"/v2/models/{served.name}/infer"] = {"post": _infer(served)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "modelserve", "version": version},
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.summary, "responses": _responses()}
    if route.parameters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.parameters
        ]
    if route.scope is not Scope.OPEN:
        operation["security"] = [{"key": []}]
        operation["description"] = f"Needs a key with the scope {route.scope.value!r}, where keys are asked for."
    if route.method == "POST":
        operation["requestBody"] = {"content": {JSON.decode(): {"schema": {}}}}
    return operation


def _infer(served: ServedModel) -> dict[str, Any]:
    signature = served.signature
    example = served.bundle.example()
    rows = {name: array[:1] if signature.is_batched else array for name, array in example.items()}
    tensors = [
        {**oip.spec_json(spec), "shape": list(rows[spec.name].shape), "data": rows[spec.name].ravel().tolist()}
        for spec in signature.inputs
    ]
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": {"type": "array", "prefixItems": [_tensor(spec) for spec in signature.inputs]}},
    }
    body = {"content": {JSON.decode(): {"schema": schema, "example": {"inputs": tensors}}}, "required": True}
    return {"summary": f"Ask {served.name}", "requestBody": body, "responses": _responses(), "security": [{"key": []}]}


def _tensor(spec: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": spec.name},
            "datatype": {"const": oip.spec_json(spec)["datatype"]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "description": str(spec)},
            "data": {"type": "array", "items": {"type": [_KINDS[spec.numpy_dtype.kind], "null"]}},
        },
    }


def _responses() -> dict[str, Any]:
    problem = {"content": {PROBLEM.decode(): {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return {
        "200": {"description": "The answer."},
        "4XX": {"description": "What was asked does not fit; the message says what.", **problem},
        "5XX": {"description": "There is no answer at this moment; the message says why.", **problem},
    }
