"""The check of one request: fields by the library's word, then the rules that only the documentation tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from modelserve.errors import ConfigError
from modelserve_vertex.validation.behaviours import PACKAGE, output_only, required, resource_patterns
from modelserve_vertex.validation.rules import RULES

#: Which field holds the name of which kind of resource; no version of the library says so in Python.
_RESOURCES = {
    "UploadModelRequest.parent": "location",
    "ListModelsRequest.parent": "location",
    "CreateEndpointRequest.parent": "location",
    "ListEndpointsRequest.parent": "location",
    "GetModelRequest.name": "model",
    "DeleteModelRequest.name": "model",
    "DeployedModel.model": "model",
    "GetEndpointRequest.name": "endpoint",
    "DeleteEndpointRequest.name": "endpoint",
    "DeployModelRequest.endpoint": "endpoint",
    "UndeployModelRequest.endpoint": "endpoint",
    "MutateDeployedModelRequest.endpoint": "endpoint",
    "PredictRequest.endpoint": "endpoint",
    "RawPredictRequest.endpoint": "endpoint",
    "StreamRawPredictRequest.endpoint": "endpoint",
    "CreateBatchPredictionJobRequest.parent": "location",
    "ListBatchPredictionJobsRequest.parent": "location",
    "GetBatchPredictionJobRequest.name": "batch_prediction_job",
    "CancelBatchPredictionJobRequest.name": "batch_prediction_job",
    "DeleteBatchPredictionJobRequest.name": "batch_prediction_job",
    "BatchPredictionJob.model": "model",
    "DeployedModel.shared_resources": "deployment_resource_pool",
}
#: Set by whoever asks, although the service writes it: to name a resource, and to say which state of it is meant.
_SENT_BACK = {"name", "etag"}


class Violation(NamedTuple):
    """What is wrong with a request: the field's path, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def check(request: Any) -> list[Violation]:
    """All that Vertex AI would refuse in a request of its API, as far as can be told without it."""
    message = type(request).pb(request) if hasattr(type(request), "pb") else request
    if not message.DESCRIPTOR.full_name.startswith(PACKAGE):
        return []
    name = message.DESCRIPTOR.name
    is_partial = name.startswith(("Update", "Mutate"))
    found = list(_fields(message, "", is_partial=is_partial, is_top=True))
    # The rules look into fields that must be there.
    return found or [Violation(*one) for one in RULES.get(name, lambda _message: [])(message)]


def require_kept(*sent: Any) -> None:
    """Stop here where Vertex AI would refuse one of these requests.

    Raises:
        ConfigError: naming everything that is wrong.
    """
    wrong = [str(violation) for request in sent for violation in check(request)]
    if wrong:
        raise ConfigError(f"Vertex AI would refuse: {'; '.join(wrong)}. Change the option that says so.")


def _fields(message: Any, path: str, *, is_partial: bool, is_top: bool = False) -> Iterator[Violation]:
    full_name, kind = message.DESCRIPTOR.full_name, message.DESCRIPTOR.name
    set_fields = {field.name: value for field, value in message.ListFields()}
    if is_top or not is_partial:
        for name in required(full_name):
            if name not in set_fields:
                yield Violation(path + name, "is required and missing")
    for name in output_only(full_name):
        if name in set_fields and name not in _SENT_BACK:
            yield Violation(path + name, "is written by the service and may not be set")
    for name, value in set_fields.items():
        yield from _resource_name(f"{kind}.{name}", path + name, value)
        for index, inner in _messages(message.DESCRIPTOR.fields_by_name[name], value):
            yield from _fields(inner, f"{path}{name}{index}.", is_partial=is_partial)


def _resource_name(field: str, path: str, value: Any) -> Iterator[Violation]:
    kind = _RESOURCES.get(field)
    if kind is not None and not resource_patterns()[kind].fullmatch(value.partition("@")[0]):
        yield Violation(path, f"{value!r} is not the resource name of a {kind}")


def _messages(field: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """The messages of this API that a field holds."""
    kind = field.message_type
    if kind is None or not kind.full_name.startswith(PACKAGE) or kind.GetOptions().map_entry:
        return
    if hasattr(value, "ListFields"):
        yield "", value
    else:
        yield from ((f"[{index}]", inner) for index, inner in enumerate(value))
