"""What an endpoint's resource says of itself, in the core's words."""

from __future__ import annotations

from typing import Any

from modelserve.backend import EndpointStatus, ReplicaStatus, Scale, State
from modelserve_vertex import names, operations, requests
from modelserve_vertex.options import EndpointKind
from modelserve_vertex.resources import Resources


def kind(endpoint: Any) -> EndpointKind:
    """How it is reached."""
    if endpoint.network:
        return EndpointKind.PRIVATE
    if endpoint.private_service_connect_config.enable_private_service_connect:
        return EndpointKind.PRIVATE_SERVICE_CONNECT
    return EndpointKind.DEDICATED if endpoint.dedicated_endpoint_enabled else EndpointKind.SHARED


def answering(endpoint: Any) -> Any | None:
    """The deployed model that has the most traffic; None where nothing is deployed."""
    split = dict(endpoint.traffic_split)
    return max(endpoint.deployed_models, key=lambda deployed: split.get(deployed.id, 0), default=None)


def registered(resources: Resources, endpoint: Any) -> Any | None:
    """The registered model that an endpoint answers with, or would if it did not rest."""
    deployed = answering(endpoint)
    if deployed is not None:
        return resources.model(deployed.model.partition("@")[0])
    meant = names.marks(endpoint)
    models = resources.models(names.made_for(names.short(endpoint.name)))
    return next((model for model in models if names.marks(model) == meant), None)


def available(deployed: Any) -> int:
    """How many of its replicas answer now."""
    return int(deployed.status.available_replica_count)


def status(resources: Resources, endpoint: Any) -> EndpointStatus:
    """The endpoint as it is now."""
    marks = names.marks(endpoint)
    deployed = answering(endpoint)
    state, message = _state(resources, endpoint, deployed)
    scale = None if deployed is None else requests.scale_of(deployed)
    return EndpointStatus(
        name=names.short(endpoint.name),
        backend="vertex",
        state=state,
        digest="" if marks is None else marks.digest,
        scale=scale,
        replicas=() if deployed is None or scale is None else _replicas(deployed, scale),
        message=message,
    )


def left_behind(name: str, what: str) -> EndpointStatus:
    """What a deploy left that has no endpoint."""
    return EndpointStatus(name, "vertex", State.FAILED, "", None, message=f"Left behind: {what}. Delete it.")


def _state(resources: Resources, endpoint: Any, deployed: Any | None) -> tuple[State, str]:
    if deployed is None:
        running = operations.running_deploy_stage(resources.google, endpoint.name)
        if running is not None:
            return State.STARTING, running
        return State.RESTING, "Nothing is deployed; scale() to 1 or more deploys the model again."
    split = {name: share for name, share in dict(endpoint.traffic_split).items() if share}
    if len(split) > 1:
        shares = ", ".join(f"{name}: {share} %" for name, share in split.items())
        return State.UPDATING, f"The traffic is divided: {shares}."
    if available(deployed) < max(1, deployed.dedicated_resources.min_replica_count):
        return State.STARTING, str(deployed.status.message)
    return State.READY, ""


def _replicas(deployed: Any, scale: Scale) -> tuple[ReplicaStatus, ...]:
    """Vertex AI counts replicas and names none of them."""
    ready = available(deployed)
    count = max(ready, scale.minimum)
    machine = deployed.dedicated_resources.machine_spec.machine_type
    return tuple(
        ReplicaStatus(
            f"{deployed.id}-{index}", State.READY if index < ready else State.STARTING, {"machine_type": machine}
        )
        for index in range(count)
    )
