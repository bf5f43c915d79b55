"""The rules that only the documentation tells, by request; each yields paths and reasons.

Sources: https://cloud.google.com/vertex-ai/docs/reference/rest and the guides to custom containers, endpoint types,
autoscaling and customer-managed keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from modelserve_vertex import limits

Found: TypeAlias = Iterator[tuple[str, str]]

_ENDPOINT_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,8}")
_MODEL_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_DEPLOYED_ID = re.compile(r"[0-9]{1,10}")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]*")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(r"(?P<region>[a-z0-9-]+)-docker\.pkg\.dev/[^/]+/[^/]+/.+|([a-z]+\.)?gcr\.io/.+")
_MUTABLE = {
    "dedicated_resources.min_replica_count",
    "dedicated_resources.max_replica_count",
    "dedicated_resources.required_replica_count",
    "dedicated_resources.autoscaling_metric_specs",
    "automatic_resources.min_replica_count",
    "automatic_resources.max_replica_count",
    "disable_container_logging",
}


def _upload_model(request: Any) -> Found:
    model, container = request.model, request.model.container_spec
    region = _region(request.parent)
    if request.model_id and not _MODEL_ID.fullmatch(request.model_id):
        yield "model_id", f"{request.model_id!r}: at most 63 of a-z, 0-9, '_' and '-', no digit or '-' first"
    yield from _described(model, "model", region)
    if model.artifact_uri and not model.artifact_uri.startswith("gs://"):
        yield "model.artifact_uri", f"{model.artifact_uri!r} is not in Cloud Storage (gs://)"
    if model.HasField("container_spec"):
        yield from _container(container, "model.container_spec.")


def _create_endpoint(request: Any) -> Found:
    endpoint = request.endpoint
    if request.endpoint_id and not _ENDPOINT_ID.fullmatch(request.endpoint_id):
        yield "endpoint_id", f"{request.endpoint_id!r}: at most 63 of a-z, 0-9 and '-', a letter first, no '-' last"
    yield from _described(endpoint, "endpoint", _region(request.parent))
    yield from _split(endpoint.traffic_split, "endpoint.traffic_split")
    is_psc = endpoint.HasField("private_service_connect_config")
    if endpoint.network and is_psc:
        yield "endpoint.network", "excludes private_service_connect_config"
    if (endpoint.network or is_psc) and endpoint.dedicated_endpoint_enabled and endpoint.network:
        yield "endpoint.dedicated_endpoint_enabled", "excludes network"
    yield from _answer_timeout(endpoint, is_psc=is_psc)


def _answer_timeout(endpoint: Any, *, is_psc: bool) -> Found:
    if not endpoint.HasField("client_connection_config"):
        return
    path = "endpoint.client_connection_config.inference_timeout"
    if endpoint.client_connection_config.inference_timeout.seconds > limits.LONGEST_TIMEOUT_S:
        yield path, f"is above {limits.LONGEST_TIMEOUT_S} s"
    if not (endpoint.dedicated_endpoint_enabled or is_psc):
        yield path, "can be chosen for dedicated and Private Service Connect endpoints only"


def _deploy_model(request: Any) -> Found:
    deployed = request.deployed_model
    yield from _split(request.traffic_split, "traffic_split")
    if deployed.id and not _DEPLOYED_ID.fullmatch(deployed.id):
        yield "deployed_model.id", f"{deployed.id!r} is not 1 to 10 digits"
    resources = deployed.WhichOneof("prediction_resources")
    if resources is None:
        yield "deployed_model", "needs dedicated_resources, automatic_resources or shared_resources"
    if resources == "dedicated_resources":
        yield from _dedicated(deployed.dedicated_resources, "deployed_model.dedicated_resources.")


def _create_batch_prediction_job(request: Any) -> Found:
    job = request.batch_prediction_job
    yield from _described(job, "batch_prediction_job", _region(request.parent))
    if bool(job.model) == job.HasField("unmanaged_container_model"):
        yield "batch_prediction_job.model", "exactly one of model and unmanaged_container_model is given"
    if job.input_config.WhichOneof("source") is None:
        yield "batch_prediction_job.input_config", "has no source"
    if job.output_config.WhichOneof("destination") is None:
        yield "batch_prediction_job.output_config", "has no destination"
    inputs, output = job.input_config.gcs_source.uris, job.output_config.gcs_destination.output_uri_prefix
    for uri in filter(None, [*inputs, output]):
        if not uri.startswith("gs://"):
            yield "batch_prediction_job", f"{uri!r} is not in Cloud Storage (gs://)"
    for where, told in (("input_config.instances_format", job.input_config.instances_format),
                        ("output_config.predictions_format", job.output_config.predictions_format)):  # fmt: skip
        if told not in limits.BATCH_FORMATS:
            yield f"batch_prediction_job.{where}", f"{told!r} is unknown; known are {sorted(limits.BATCH_FORMATS)}"
    if job.HasField("dedicated_resources"):
        yield from _batch_machines(job.dedicated_resources, "batch_prediction_job.dedicated_resources.")
    elif job.HasField("manual_batch_tuning_parameters"):
        yield "batch_prediction_job.manual_batch_tuning_parameters", "goes with dedicated_resources only"


def _batch_machines(resources: Any, path: str) -> Found:
    yield from _machine(resources.machine_spec, f"{path}machine_spec.")
    starting, most = resources.starting_replica_count, resources.max_replica_count
    if most and starting > most:
        yield f"{path}starting_replica_count", f"{starting} is above max_replica_count {most}"


def _undeploy_model(request: Any) -> Found:
    yield from _split(request.traffic_split, "traffic_split")
    if "0" in request.traffic_split:
        yield "traffic_split", "'0' names a model that is being deployed, and none is"


def _update_endpoint(request: Any) -> Found:
    yield from _split(request.endpoint.traffic_split, "endpoint.traffic_split")
    yield from _mask(request.update_mask, request.endpoint.DESCRIPTOR)
    yield from _labels(request.endpoint.labels, "endpoint.labels")


def _mutate_deployed_model(request: Any) -> Found:
    yield from _mask(request.update_mask, request.deployed_model.DESCRIPTOR)
    for path in request.update_mask.paths:
        if path not in _MUTABLE:
            yield "update_mask", f"{path!r} cannot be changed once the model is deployed"
    paths = set(request.update_mask.paths)
    resources = request.deployed_model.dedicated_resources
    if {"dedicated_resources.min_replica_count", "dedicated_resources.max_replica_count"} <= paths:
        yield from _replicas(resources, "deployed_model.dedicated_resources.")
    yield from _metrics(resources, "deployed_model.dedicated_resources.")


def _described(resource: Any, path: str, region: str) -> Found:
    """What models and endpoints have alike."""
    if len(resource.display_name) > limits.DISPLAY_NAME_LETTERS:
        yield f"{path}.display_name", f"is longer than {limits.DISPLAY_NAME_LETTERS}"
    yield from _labels(resource.labels, f"{path}.labels")
    key = resource.encryption_spec.kms_key_name if resource.HasField("encryption_spec") else ""
    if key and f"/locations/{region}/" not in key:
        yield f"{path}.encryption_spec.kms_key_name", f"{key!r} is not a key of {region!r}"


def _labels(labels: Mapping[str, str], path: str) -> Found:
    if len(labels) > limits.LABELS:
        yield path, f"has {len(labels)} labels, at most {limits.LABELS} are taken"
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or len(key) > limits.LABEL_LETTERS:
            yield path, f"key {key!r}: at most 63 of a-z, 0-9, '_' and '-', a letter first"
        if not _LABEL_VALUE.fullmatch(value) or len(value) > limits.LABEL_LETTERS:
            yield path, f"value {value!r} of {key!r}: at most 63 of a-z, 0-9, '_' and '-'"


def _container(container: Any, path: str) -> Found:
    if not _IMAGE.fullmatch(container.image_uri):
        yield f"{path}image_uri", f"{container.image_uri!r} is not in Artifact Registry"
    for route in ("predict_route", "health_route"):
        if getattr(container, route) and not getattr(container, route).startswith("/"):
            yield path + route, f"{getattr(container, route)!r} does not begin with '/'"
    if container.invoke_route_prefix and container.predict_route:
        yield f"{path}invoke_route_prefix", "excludes predict_route"
    if container.deployment_timeout.seconds > limits.LONGEST_DEPLOY_S:
        yield f"{path}deployment_timeout", f"is above {limits.LONGEST_DEPLOY_S} s"
    for index, variable in enumerate(container.env):
        if not _VARIABLE.fullmatch(variable.name):
            yield f"{path}env[{index}].name", f"{variable.name!r} is no name of a variable"
        if variable.name.startswith("AIP_"):
            yield f"{path}env[{index}].name", f"{variable.name!r} is reserved"


def _dedicated(resources: Any, path: str) -> Found:
    yield from _replicas(resources, path)
    yield from _metrics(resources, path)
    yield from _machine(resources.machine_spec, f"{path}machine_spec.")


def _replicas(resources: Any, path: str) -> Found:
    minimum, maximum = resources.min_replica_count, resources.max_replica_count
    if minimum < 1:
        yield f"{path}min_replica_count", f"is {minimum}, at least 1 is taken"
    if maximum and maximum < minimum:
        yield f"{path}max_replica_count", f"{maximum} is below min_replica_count {minimum}"
    if resources.required_replica_count > max(minimum, 1):
        yield f"{path}required_replica_count", f"{resources.required_replica_count} is above min_replica_count"


def _metrics(resources: Any, path: str) -> Found:
    seen: set[str] = set()
    for index, spec in enumerate(resources.autoscaling_metric_specs):
        at = f"{path}autoscaling_metric_specs[{index}]."
        if spec.metric_name not in limits.METRICS:
            yield f"{at}metric_name", f"{spec.metric_name!r} is unknown; known are {', '.join(sorted(limits.METRICS))}"
        if spec.metric_name in seen:
            yield f"{at}metric_name", f"{spec.metric_name!r} stands twice"
        if spec.metric_name != limits.REQUEST_COUNT and not 1 <= (spec.target or 60) <= 100:
            yield f"{at}target", f"{spec.target} is not a percentage from 1 to 100"
        seen.add(spec.metric_name)


def _machine(machine: Any, path: str) -> Found:
    kind = machine.machine_type
    if kind and (not kind.startswith(limits.FAMILIES) or kind in limits.REFUSED_MACHINES):
        yield (
            f"{path}machine_type",
            f"{kind!r} is not supported; N1 (from 2 processors), E2, N2, C2, C3, A2, A3, G2 are",
        )
    if bool(machine.accelerator_type) != bool(machine.accelerator_count):
        yield f"{path}accelerator_count", "accelerator_type and accelerator_count go together"
    if machine.accelerator_type and kind.startswith(limits.CPU_ONLY):
        yield f"{path}accelerator_type", f"{kind!r} takes none; they attach to N1, A2, A3 and G2 bring theirs"


def _split(split: Mapping[str, int], path: str) -> Found:
    if split and (sum(split.values()) != 100 or any(share < 0 for share in split.values())):
        yield path, f"must sum to 100, got {sum(split.values())}"


def _mask(mask: Any, target: Any) -> Found:
    if not mask.paths:
        yield "update_mask", "is empty"
    for path in mask.paths:
        kind = target
        for name in path.split("."):
            field = kind.fields_by_name.get(name) if kind is not None else None
            if field is None:
                yield "update_mask", f"{path!r} is no field"
                break
            kind = field.message_type


def _region(parent: str) -> str:
    return parent.rpartition("/")[2]


RULES: Mapping[str, Callable[[Any], Found]] = {
    "UploadModelRequest": _upload_model,
    "CreateEndpointRequest": _create_endpoint,
    "DeployModelRequest": _deploy_model,
    "UndeployModelRequest": _undeploy_model,
    "CreateBatchPredictionJobRequest": _create_batch_prediction_job,
    "UpdateEndpointRequest": _update_endpoint,
    "MutateDeployedModelRequest": _mutate_deployed_model,
}
