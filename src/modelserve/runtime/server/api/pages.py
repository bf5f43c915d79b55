"""Pages for people: what the server does at this moment, a prediction to try, and how to ask it by program.

GET /        status, live with JavaScript      shows what the caller may see, and no more
POST /       the same after a prediction       JSON in a form
GET /docs    each model by example, each path
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import numpy as np
import orjson

from modelserve.bundle import Bundle
from modelserve.errors import InputError, ModelServeError
from modelserve.runtime.server import problems
from modelserve.runtime.server.access.caller import ANYBODY, Caller, require_model
from modelserve.runtime.server.formats import oip, rows
from modelserve.runtime.server.formats.values import json_from_array
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.life import Life
from modelserve.runtime.server.models.repository import Entry, Repository, State
from modelserve.runtime.server.models.served import ServedModel
from modelserve.runtime.server.observe.history import STEPS, History
from modelserve.runtime.server.pages import render
from modelserve.runtime.server.routes import Route, Scope
from modelserve.tensors import Array

_LONGEST_EXAMPLE = 4096
_LONGEST_SHOWN = 64 << 10
_LONGEST_LITERAL = 32


class Tried(NamedTuple):
    """A prediction that was tried, and what came of it."""

    model: str
    text: str
    answer: str
    status: int = 200
    took: str = ""


class Pages:
    """Makes the pages.

    Args:
        described: The routes that the docs list.
        connections: How many are open.
        closed: Whether callers need keys.
    """

    def __init__(
        self,
        repository: Repository,
        life: Life,
        history: History,
        connections: Callable[[], int],
        described: Sequence[Route],
        version: str,
        *,
        closed: bool,
        secure: bool,
    ) -> None:
        self._repository = repository
        self._life = life
        self._history = history
        self._connections = connections
        self._described = described
        self._version = version
        self._closed = closed
        self._secure = secure

    def routes(self) -> list[Route]:
        """The paths of the pages and of what they refer to."""
        pages = [
            Route("GET", "/", self.status, Scope.PREDICT, "The status page", always=True),
            Route("POST", "/", self.tried, Scope.PREDICT, "The status page, after a prediction"),
            Route("GET", "/docs", self.docs, Scope.PREDICT, "How to ask this server, by example"),
        ]
        files = [
            Route("GET", f"/pages/{name}", partial(_file, name), Scope.OPEN, "Part of the pages", always=True)
            for name in ("style.css", "live.js")
        ]
        return [replace(route, page=True) for route in pages] + files

    async def status(self, request: Request) -> Response:
        """How everything is now."""
        return await _aside(self._status, request, None)

    async def tried(self, request: Request) -> Response:
        """Predict what the form says, and show what came of it on the same page."""
        return await _aside(self._status, request, await self._try(request))

    async def docs(self, request: Request) -> Response:
        """How to ask."""
        return await _aside(self._docs, request)

    async def _try(self, request: Request) -> Tried:
        fields = parse_qs(bytes(request.body).decode("utf-8", "replace"), max_num_fields=8)
        name, text = fields.get("model", [""])[0], fields.get("instances", [""])[0]
        body = text.strip().encode()
        body = body if body.startswith(b"{") and b'"' in body else b'{"instances":%b}' % (body or b"null")
        try:
            require_model(request, name)
            served = await self._repository.demand(name)
            response = await served.ask(lambda model: rows.read(body, model), request)
        except ModelServeError as error:
            return Tried(name, text, str(error), problems.status_of(error))
        timing = request.timing
        took = f"queued {timing.queue_ns / 1e6:.2f} ms, computed {timing.compute_ns / 1e6:.2f} ms"
        assert isinstance(response.body, bytes)
        return Tried(name, text, _readable(response.body), took=took)

    def _status(self, request: Request, tried: Tried | None) -> Response:
        caller: Caller = request.caller or ANYBODY
        may_measure = caller.may(Scope.METRICS)
        entries = self._visible(caller)
        served = [entry.served for entry in entries if entry.served is not None]
        return render.page(
            "status.html",
            status=200 if tried is None else tried.status,
            here="status",
            version=self._version,
            may_measure=may_measure,
            why=self._life.why_not_ready(),
            connections=self._connections(),
            models=[self._model(entry) for entry in entries],
            forms=[_form(one, tried) for one in {one.name: one for one in served}.values()],
            steps=STEPS,
        )

    def _visible(self, caller: Caller) -> list[Entry]:
        return [entry for entry in self._repository.entries() if caller.knows(entry.place.name)]

    def _model(self, entry: Entry) -> dict[str, Any]:
        served = entry.served
        found: dict[str, Any] = {
            "name": entry.place.name,
            "version": entry.place.version,
            "state": entry.state.value,
            "reason": entry.reason if entry.state is not State.READY else "",
            "failed": entry.state is State.UNAVAILABLE and entry.reason not in {"not loaded", "unloaded"},
            "served": served is not None,
        }
        if served is None:
            return found
        status, steps = served.status(), self._history.of(served)
        latencies = [step.latency_ms for step in steps]
        last = next((value for value in reversed(latencies) if value is not None), None)
        return found | {
            "rates": [step.requests_per_s for step in steps],
            "latencies": latencies,
            "latency": "–" if last is None else f"{last:.2f} ms",
            "answered": served.statistics.succeeded,
            "failures": served.statistics.failed,
            "inflight": served.inflight,
            "restarts": status.restarts,
            "workers": status.workers,
            "inputs": ", ".join(f"{spec.name}: {spec}" for spec in served.signature.inputs),
            "outputs": ", ".join(f"{spec.name}: {spec}" for spec in served.signature.outputs),
            "digest": served.bundle.digest,
        }

    def _docs(self, request: Request) -> Response:
        caller: Caller = request.caller or ANYBODY
        host = request.headers.get(b"host", b"127.0.0.1").decode("latin-1")
        served = [entry.served for entry in self._visible(caller) if entry.served is not None]
        return render.page(
            "docs.html",
            here="docs",
            version=self._version,
            may_measure=caller.may(Scope.METRICS),
            closed=self._closed,
            secure=self._secure,
            host=host,
            url=f"{'https' if self._secure else 'http'}://{host}",
            header=' -H "Authorization: Bearer $KEY"' if self._closed else "",
            headers=', headers={"authorization": f"Bearer {key}"}' if self._closed else "",
            models=[_described(one) for one in served],
            routes=[route for route in self._described if caller.may(route.scope)],
        )


async def _aside(work: Callable[..., Response], *arguments: Any) -> Response:
    """Made in another thread: templates and a look at the workers take milliseconds, which no request should wait."""
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def _file(name: str, request: Request) -> Response:
    return render.static(name)


def _form(served: ServedModel, tried: Tried | None) -> dict[str, Any]:
    own = tried if tried is not None and tried.model == served.name else None
    return {
        "name": served.name,
        "text": own.text if own is not None else _instances(served.bundle),
        "answer": None if own is None else own.answer,
        "refused": own is not None and own.status >= 400,
        "took": "" if own is None else own.took,
    }


def _described(served: ServedModel) -> dict[str, Any]:
    signature = served.signature
    return {
        "name": served.name,
        "version": served.version,
        "primary": signature.primary,
        "tensors": [("takes", spec) for spec in signature.inputs] + [("gives", spec) for spec in signature.outputs],
        "rows": _rows_body(served),
        "example": [
            {"name": name, "shape": list(array.shape), "datatype": oip.datatype_of(array), "array": _constructed(array)}
            for name, array in _example(served.bundle).items()
        ],
    }


def _rows_body(served: ServedModel) -> str:
    text = _instances(served.bundle)
    return f'{{"instances": {text}}}' if text else '{"instances": [...]}'


def _constructed(array: Array) -> str:
    """The array as a line of Python, where that can be read."""
    name = {"O": "object", "b": "bool"}.get(array.dtype.kind, f"np.{array.dtype.name}")
    if array.size <= _LONGEST_LITERAL and array.dtype.kind == "f" and np.isfinite(array).all():
        return f"np.array({json_from_array(array).decode()}, {name})"  # as few digits as say the same number
    if array.size <= _LONGEST_LITERAL:
        return f"np.array({array.tolist()!r}, {name})"
    return f"np.zeros({array.shape}, {name})"


def _instances(bundle: Bundle) -> str:
    """The bundle's example as instances; empty where it is too long to be read by people."""
    example = _example(bundle)
    if sum(array.size for array in example.values()) > _LONGEST_EXAMPLE:
        return ""
    is_batched = bundle.signature.is_batched
    if len(example) == 1:
        (array,) = example.values()
        return json_from_array(array if is_batched else array[np.newaxis]).decode()
    first = {
        name: orjson.Fragment(json_from_array(array.reshape(array.shape[1:]) if is_batched else array))
        for name, array in example.items()
    }
    return orjson.dumps([first]).decode()


def _example(bundle: Bundle) -> dict[str, Array]:
    """One row of the bundle's example."""
    return {name: array[:1] if bundle.signature.is_batched else array for name, array in bundle.example().items()}


def _readable(body: bytes) -> str:
    text = orjson.dumps(orjson.loads(body)).decode() if len(body) > 2000 else _indented(body)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + " …"


def _indented(body: bytes) -> str:
    """One line for each prediction."""
    predictions = orjson.loads(body).get("predictions")
    if not isinstance(predictions, list):
        raise InputError("There is no prediction to show.")
    return "\n".join(orjson.dumps(one).decode() for one in predictions)
