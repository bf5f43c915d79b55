"""OpenTelemetry traces, by the standard OTEL_* variables.

POST /v2/models/{name}/infer ├────────────────────────────┤      child of the client's span, if `traceparent` names one
queue                          ├──────┤                          until a run began
batch                                 ├─────────────────┤        until the answer was in hand; how many shared it
compute                               ├─────────────┤            until that run had its first answer

Spans are made when an answer leaves, from times that were noted anyway: a request pays for them once, at its end.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from modelserve.errors import ConfigError
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.routes import Route

_log = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the variables ask for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    return exporter != "none" and bool(exporter or any(environment.get(name) for name in _ENDPOINTS))


def from_environment(environment: Mapping[str, str], version: str) -> Traces | None:
    """What sends traces where the variables say; None where they say nothing, or what it needs is not installed.

    A missing package is told and costs the traces alone: such variables are often set for a whole cluster.

    Raises:
        ConfigError: an exporter or a protocol that there is not.
    """
    if not wanted(environment):
        return None
    named = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    if named != "otlp":
        raise ConfigError(f"OTEL_TRACES_EXPORTER is {named!r}; it must be otlp or none.")
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
    if protocol not in _EXPORTERS:
        raise ConfigError(f"The OTLP protocol {protocol!r} is not spoken; {' and '.join(_EXPORTERS)} are.")
    try:
        exporter = import_module(_EXPORTERS[protocol]).OTLPSpanExporter()
        return Traces(exporter, environment, version)
    except ModuleNotFoundError as error:
        remedy = 'pip install "modelserve[otel]"'
        _log.warning("OTEL_* variables ask for traces, which need %r. Install it with: %s", error.name, remedy)
        return None


class Traces:
    """Makes spans of what was answered. What asks after the server itself (health, metrics) is left out.

    Args:
        exporter: Where spans go, in a thread of the SDK's own.
    """

    def __init__(self, exporter: Any, environment: Mapping[str, str], version: str) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        own = {SERVICE_VERSION: version}
        if not environment.get("OTEL_SERVICE_NAME") and "service.name" not in environment.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            own[SERVICE_NAME] = "modelserve"
        # A provider of our own, never the program's: whoever embeds the server keeps theirs.
        self._provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("modelserve", version)
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def answered(self, request: Request, response: Response, elapsed_ns: int) -> None:
        route: Route | None = request.route
        if route is None or route.always:
            return
        wall_ns = time.time_ns() - time.monotonic_ns()
        arrived_ns = request.arrived_ns + wall_ns
        span = self._tracer.start_span(
            f"{route.method} {route.pattern}",
            self._parent(request),
            self._trace.SpanKind.SERVER,
            _attributes(request, response, route),
            start_time=arrived_ns,
        )
        request.trace_id = format(span.get_span_context().trace_id, "032x")
        if span.is_recording():
            if response.status >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
            self._parts(request, span, wall_ns, arrived_ns + elapsed_ns)
        span.end(arrived_ns + elapsed_ns)

    def close(self) -> None:
        """Send what is left. Blocks."""
        self._provider.shutdown()

    def _parent(self, request: Request) -> Any:
        given = request.headers.get(b"traceparent")
        if given is None:
            return None
        state = request.headers.get(b"tracestate", b"")
        return self._propagator.extract({"traceparent": given.decode("latin-1"), "tracestate": state.decode("latin-1")})

    def _parts(self, request: Request, span: Any, wall_ns: int, end_ns: int) -> None:
        timing = request.timing
        if timing is None:
            return
        sent_ns, began_ns, computed_ns = (at + wall_ns for at in timing[:3])
        whole = self._trace.set_span_in_context(span)
        self._tracer.start_span("queue", whole, start_time=sent_ns).end(began_ns)
        joined = {"modelserve.batch.requests": timing.joined}
        batch = self._tracer.start_span("batch", whole, attributes=joined, start_time=began_ns)
        within = self._trace.set_span_in_context(batch)
        self._tracer.start_span("compute", within, start_time=began_ns).end(computed_ns)
        batch.end(end_ns)


def _attributes(request: Request, response: Response, route: Route) -> dict[str, Any]:
    """By the semantic conventions for HTTP, and what only we know."""
    found: dict[str, Any] = {
        "http.request.method": request.method.decode("latin-1"),
        "http.route": route.pattern,
        "http.response.status_code": response.status,
        "client.address": request.peer,
        "modelserve.request_id": request.id.decode("ascii", "replace"),
    }
    if request.arguments:
        found["modelserve.model"] = request.arguments[0]
    return found
