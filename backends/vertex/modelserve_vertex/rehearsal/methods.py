"""Every method of Vertex AI that the installed library can call, gRPC and REST, read from the library's own transports.

A new version of the library brings its new methods by itself; one that is gone is missed by a test.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from google.longrunning import operations_pb2

SERVICES = ("model_service", "endpoint_service", "prediction_service", "job_service")
#: The method whose answer comes in pieces; its body is carried untouched, as RawPredict's.
STREAM = "StreamRawPredict"
_TRANSPORTS = "google.cloud.aiplatform_v1.services.{}.transports"
_HOLE = re.compile(r"\{(?P<name>[\w.]+)(=(?P<pattern>[^}]*))?\}")


@dataclass(frozen=True, slots=True)
class HttpRule:
    """How one method is asked over REST.

    Attributes:
        path: With a group for each field that the path holds; dots of its name are "__".
        body: The field that the body fills: "*" is the whole request, "" is none.
    """

    verb: str
    path: re.Pattern[str]
    body: str


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        path: As gRPC has it, /google.cloud.aiplatform.v1.ModelService/UploadModel.
        request: The class of its request: proto-plus, or plain for what other services share.
        is_streamed: Whether its answer comes in pieces.
    """

    name: str
    path: str
    request: Any
    is_streamed: bool
    rules: tuple[HttpRule, ...]

    @property
    def message(self) -> Any:
        """The request's plain protobuf class."""
        return self.request.pb() if hasattr(self.request, "pb") else self.request

    def wrapped(self, message: Any) -> Any:
        """The request as a handler takes it."""
        return self.request.wrap(message) if hasattr(self.request, "wrap") else message


@cache
def methods() -> Mapping[str, Method]:
    """All methods by their gRPC path."""
    found: dict[str, Method] = {}
    for service in SERVICES:
        rules = _http_rules(service)
        for kind, path, request in _grpc_calls(service):
            name = path.rpartition("/")[2]
            found.setdefault(path, Method(name, path, request, kind == "unary_stream", rules.get(name, ())))
    return found


def match(verb: str, path: str) -> tuple[Method, HttpRule, dict[str, str]] | None:
    """The method that a REST request means, and the fields that its path holds."""
    for method in methods().values():
        for rule in method.rules:
            if rule.verb == verb and (hit := rule.path.fullmatch(path)):
                return method, rule, {name.replace("__", "."): value for name, value in hit.groupdict().items()}
    return None


class _Recorder:
    """Stands for a channel, and notes what would be called over it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        def record(path: str, request_serializer: Any = None, **_others: Any) -> Callable[..., None]:
            self.calls.append((kind, path, _request_class(path, request_serializer)))
            return lambda *_arguments, **_named: None

        return record


def _grpc_calls(service: str) -> Iterator[tuple[str, str, Any]]:
    transport = _class_in(import_module(_TRANSPORTS.format(service) + ".grpc"), "GrpcTransport")
    for name, stub in inspect.getmembers(transport, lambda member: isinstance(member, property)):
        if name in {"kind", "host", "operations_client", "grpc_channel"}:
            continue
        recorder, bare = _Recorder(), transport.__new__(transport)
        # What its own constructor sets, without a channel to anywhere.
        vars(bare).update(_stubs={}, _logged_channel=recorder, _grpc_channel=recorder)
        stub.fget(bare)
        yield from recorder.calls


def _request_class(path: str, serializer: Any) -> Any:
    """The class of the request that a stub serialises; what all services share comes with a plain serialiser."""
    _, service, name = path.split("/")
    if service == "google.longrunning.Operations":
        return getattr(operations_pb2, f"{name}Request")
    return getattr(serializer, "__self__", serializer)


def _http_rules(service: str) -> dict[str, tuple[HttpRule, ...]]:
    transport = _class_in(import_module(_TRANSPORTS.format(service) + ".rest_base"), "RestTransport")
    return {
        name.removeprefix("_Base"): tuple(_rule(option) for option in inner._get_http_options())  # noqa: SLF001  # the library's own table
        for name, inner in vars(transport).items()
        if name.startswith("_Base") and hasattr(inner, "_get_http_options")
    }


def _rule(option: Mapping[str, str]) -> HttpRule:
    return HttpRule(option["method"].upper(), _path_pattern(option["uri"]), option.get("body", ""))


def _path_pattern(template: str) -> re.Pattern[str]:
    """A URI template of the API as a pattern: "*" is one segment, "**" is any number of them."""
    pieces, at = [], 0
    for hole in _HOLE.finditer(template):
        inner = re.escape(hole["pattern"] or "*").replace(r"\*\*", ".+").replace(r"\*", "[^/:]+")
        pieces += [re.escape(template[at : hole.start()]), f"(?P<{hole['name'].replace('.', '__')}>{inner})"]
        at = hole.end()
    return re.compile("".join([*pieces, re.escape(template[at:])]))


def _class_in(module: Any, ending: str) -> Any:
    return next(
        kind
        for name, kind in vars(module).items()
        if name.endswith(ending) and inspect.isclass(kind) and kind.__module__ == module.__name__
    )
