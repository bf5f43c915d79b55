"""How Vertex AI starts a container: everything by AIP_* variables, the model fetched by the container itself.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
"""

from __future__ import annotations

from typing import Any

from modelserve.standin.containers import ContainerSpec
from modelserve_vertex import names

#: From the guide; SIGKILL follows SIGTERM after it.
_GRACE_S = 30.0


def routes(endpoint: str, deployed_id: str, container: Any) -> tuple[str, str]:
    """Where a container is asked for predictions, and for its health."""
    default = f"/v1/endpoints/{names.short(endpoint)}/deployedModels/{deployed_id}"
    return container.predict_route or f"{default}:predict", container.health_route or default


def container_spec(
    endpoint: str, deployed: Any, model: Any, *, project_number: str, storage_uri: str, storage_address: str
) -> ContainerSpec:
    """One replica of a deployed model.

    Args:
        storage_uri: Of Vertex AI's own copy of the artefacts; empty where the model has none.
        storage_address: Of the stand-in's Cloud Storage, which the container asks instead of Google's.
    """
    predict, health = routes(endpoint, deployed.id, model.container_spec)
    machine = deployed.dedicated_resources.machine_spec
    environment = {
        "AIP_MODE": "PREDICTION",
        "AIP_MODE_VERSION": "1.0.0",
        "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
        "AIP_PREDICT_ROUTE": predict,
        "AIP_HEALTH_ROUTE": health,
        "AIP_STORAGE_URI": storage_uri,
        "AIP_ENDPOINT_ID": names.short(endpoint),
        "AIP_DEPLOYED_MODEL_ID": deployed.id,
        "AIP_PROJECT_NUMBER": project_number,
        "AIP_MODEL_NAME": names.short(model.name),
        "AIP_VERSION_NAME": model.version_id,
        "AIP_MACHINE_TYPE": machine.machine_type,
        "AIP_ACCELERATOR_TYPE": machine.accelerator_type.name if machine.accelerator_type else "",
        "STORAGE_EMULATOR_HOST": storage_address,
        **{variable.name: variable.value for variable in model.container_spec.env},
    }
    return ContainerSpec(environment=environment, port_variable="AIP_HTTP_PORT", health_path=health, grace_s=_GRACE_S)
