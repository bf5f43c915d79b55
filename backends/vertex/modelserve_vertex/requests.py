"""The requests that the backend sends, built from a recipe; nothing here contacts anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.cloud import aiplatform_v1 as v1

from modelserve.backend import Scale
from modelserve.errors import NotSupportedError
from modelserve_vertex import limits, names
from modelserve_vertex.options import EndpointKind, VertexOptions
from modelserve_vertex.recipe import HEALTH_ROUTE, PORT, PREDICT_ROUTE, Recipe, machine

#: By target of a `Scale`: the metric, and how many of its units one of ours is.
_METRICS = {
    "target_cpu": (limits.CPU_UTILIZATION, 100.0),
    "target_requests_per_minute": (limits.REQUEST_COUNT, 1.0),
}
SCALE_PATHS = (
    "dedicated_resources.min_replica_count",
    "dedicated_resources.max_replica_count",
    "dedicated_resources.autoscaling_metric_specs",
)


def upload_model(recipe: Recipe) -> v1.UploadModelRequest:
    """The model's registration: which image runs, and where it finds the bundle."""
    options = recipe.options
    container = v1.ModelContainerSpec(
        image_uri=recipe.image,
        env=[v1.EnvVar(name=name, value=value) for name, value in sorted(recipe.environment.items())],
        ports=[v1.Port(container_port=PORT)],
        predict_route=PREDICT_ROUTE,
        health_route=HEALTH_ROUTE,
        deployment_timeout={"seconds": int(options.container_timeout_s)},
    )
    model = v1.Model(
        display_name=recipe.name, artifact_uri=recipe.artifact_uri, labels=recipe.labels, container_spec=container
    )
    if options.kms_key:
        model.encryption_spec = v1.EncryptionSpec(kms_key_name=options.kms_key)
    return v1.UploadModelRequest(
        parent=recipe.parent, model_id=recipe.model_id, model=model, service_account=options.service_account
    )


def create_endpoint(recipe: Recipe) -> v1.CreateEndpointRequest:
    """An endpoint without a model yet."""
    options = recipe.options
    endpoint = v1.Endpoint(display_name=recipe.name, labels=recipe.labels)
    _reached(endpoint, options)
    if options.kms_key:
        endpoint.encryption_spec = v1.EncryptionSpec(kms_key_name=options.kms_key)
    if options.request_log_table:
        endpoint.predict_request_response_logging_config = v1.PredictRequestResponseLoggingConfig(
            enabled=True,
            sampling_rate=options.request_log_share,
            bigquery_destination=v1.BigQueryDestination(output_uri=options.request_log_table),
        )
    return v1.CreateEndpointRequest(parent=recipe.parent, endpoint_id=recipe.name, endpoint=endpoint)


def deploy_model(
    endpoint: str, model: str, options: VertexOptions, scale: Scale, split: Mapping[str, int]
) -> v1.DeployModelRequest:
    """The model onto an endpoint; `split` is the traffic from then on, "0" being the model that is deployed."""
    deployed = v1.DeployedModel(
        id=names.deployed_id(names.short(model), machine(options)),
        model=model,
        display_name=names.short(endpoint),
        dedicated_resources=v1.DedicatedResources(
            machine_spec=_hardware(options), spot=options.spot, **_replicas(scale)
        ),
        service_account=options.service_account,
        disable_container_logging=not options.container_logging,
        enable_access_logging=options.access_logging,
    )
    return v1.DeployModelRequest(endpoint=endpoint, deployed_model=deployed, traffic_split=dict(split))


def mutate_replicas(endpoint: str, deployed_id: str, scale: Scale) -> v1.MutateDeployedModelRequest:
    """Another number of replicas: exactly these fields, so that nothing else is reset."""
    deployed = v1.DeployedModel(id=deployed_id, dedicated_resources=v1.DedicatedResources(**_replicas(scale)))
    return v1.MutateDeployedModelRequest(
        endpoint=endpoint, deployed_model=deployed, update_mask={"paths": list(SCALE_PATHS)}
    )


def move_traffic(endpoint: Any, split: Mapping[str, int], labels: Mapping[str, str]) -> v1.UpdateEndpointRequest:
    """The endpoint's traffic, and the labels that name the model behind it, unless somebody changed it meanwhile."""
    changed = v1.Endpoint(
        name=endpoint.name,
        etag=endpoint.etag,
        display_name=endpoint.display_name,
        traffic_split=dict(split),
        labels=dict(labels),
    )
    return v1.UpdateEndpointRequest(endpoint=changed, update_mask={"paths": ["traffic_split", "labels"]})


def undeploy_model(endpoint: str, deployed_id: str, split: Mapping[str, int]) -> v1.UndeployModelRequest:
    """The model off its endpoint; `split` is what remains, or empty where it had no traffic."""
    return v1.UndeployModelRequest(endpoint=endpoint, deployed_model_id=deployed_id, traffic_split=dict(split))


def batch_job(
    parent: str,
    options: VertexOptions,
    *,
    model: Any,
    display_name: str,
    labels: Mapping[str, str],
    input_uri: str,
    output_uri: str,
    batch_rows: int,
) -> v1.CreateBatchPredictionJobRequest:
    """A registered model over JSON lines in storage; `batch_rows` of them are sent to a container at once."""
    machines = v1.BatchDedicatedResources(
        machine_spec=_hardware(options, options.batch_machine_type),
        starting_replica_count=options.batch_replicas,
        # Said outright: left out, it would be 10, and the number of replicas is ours to choose.
        max_replica_count=options.batch_replicas,
    )
    job = v1.BatchPredictionJob(
        display_name=display_name,
        model=model.name,
        labels=dict(labels),
        input_config={"instances_format": "jsonl", "gcs_source": {"uris": [input_uri]}},
        output_config={"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": output_uri}},
        dedicated_resources=machines,
        manual_batch_tuning_parameters={"batch_size": batch_rows},
        service_account=options.service_account,
        disable_container_logging=not options.container_logging,
    )
    if options.kms_key:
        job.encryption_spec = v1.EncryptionSpec(kms_key_name=options.kms_key)
    return v1.CreateBatchPredictionJobRequest(parent=parent, batch_prediction_job=job)


def accelerator(name: str) -> Any:
    """The accelerator called `name`.

    Raises:
        NotSupportedError: Vertex AI knows none of that name.
    """
    found = v1.AcceleratorType.__members__.get(name)
    if found is None:
        known = ", ".join(one for one in v1.AcceleratorType.__members__ if "UNSPECIFIED" not in one)
        raise NotSupportedError(f"Vertex AI has no accelerator {name!r}; it has {known}.")
    return found


def scale_of(deployed: Any) -> Scale:
    """The replicas that a deployed model was told to have, in the core's words."""
    resources = deployed.dedicated_resources
    minimum = resources.min_replica_count
    maximum = max(resources.max_replica_count, minimum)
    by_metric = {metric: (target, unit) for target, (metric, unit) in _METRICS.items()}
    for spec in resources.autoscaling_metric_specs:
        if spec.metric_name in by_metric and minimum != maximum:
            target, unit = by_metric[spec.metric_name]
            return Scale(minimum, maximum, **{target: spec.target / unit})
    return Scale(minimum, maximum)


def _hardware(options: VertexOptions, other: str = "") -> Any:
    """The machine of a replica; `other` is one that is chosen for it, without attached accelerators."""
    hardware = v1.MachineSpec(machine_type=other or options.machine_type)
    if options.accelerator_type and not other:
        hardware.accelerator_type = accelerator(options.accelerator_type)
        hardware.accelerator_count = options.accelerator_count
    return hardware


def _reached(endpoint: Any, options: VertexOptions) -> None:
    """Say how the endpoint is reached."""
    kind = options.endpoint
    if kind is EndpointKind.DEDICATED:
        endpoint.dedicated_endpoint_enabled = True
    elif kind is EndpointKind.PRIVATE:
        endpoint.network = options.network
    elif kind is EndpointKind.PRIVATE_SERVICE_CONNECT:
        endpoint.private_service_connect_config = v1.PrivateServiceConnectConfig(
            enable_private_service_connect=True, project_allowlist=list(options.psc_projects)
        )
    if not limits.KIND_LIMITS[kind].timeout_is_fixed:
        endpoint.client_connection_config = {"inference_timeout": {"seconds": int(options.inference_timeout_s)}}


def _replicas(scale: Scale) -> dict[str, Any]:
    """Counts, and what moves them between the bounds.

    Raises:
        NotSupportedError: a target that Vertex AI has no metric for.
    """
    specs = []
    for target, value in scale.targets.items():
        if target not in _METRICS:
            raise NotSupportedError(f"Vertex AI scales by {' or '.join(_METRICS)}, not by {target}.")
        metric, unit = _METRICS[target]
        specs.append(v1.AutoscalingMetricSpec(metric_name=metric, target=max(1, round(value * unit))))
    return {
        "min_replica_count": scale.minimum,
        # Said outright: left out, it would be the minimum at a deploy and 0 in an update.
        "max_replica_count": scale.maximum,
        "autoscaling_metric_specs": specs,
    }
