"""What is sent for each resource. Every body is checked before it leaves (`validation.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.validation import Kind, check

PORT = 5001
SCORE, READY, LIVE = "/score", "/ready", "/live"
_AUTH = {"key": "Key", "aml_token": "AMLToken", "aad_token": "AADToken"}
_PERIOD_S = 10


def environment(image: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """Our container, and where it is asked. Code of the service's own is not put into it."""
    routes = {"livenessRoute": LIVE, "readinessRoute": READY, "scoringRoute": SCORE, "startupRoute": READY}
    config = {route: {"path": path, "port": PORT} for route, path in routes.items()}
    body = {"properties": {"image": image, "inferenceConfig": config, "osType": "Linux", "tags": dict(tags)}}
    check(Kind.ENVIRONMENT, "environment", body)
    return body


def endpoint(name: str, region: str, options: AzureMLOptions, tags: Mapping[str, str]) -> dict[str, Any]:
    """A new endpoint, without traffic."""
    body = {
        "location": region,
        "tags": dict(tags),
        "identity": _identity(options.identity),
        "properties": {
            "authMode": _AUTH[options.auth],
            "publicNetworkAccess": "Enabled" if options.public_network else "Disabled",
            "traffic": {},
        },
    }
    check(Kind.ENDPOINT, name, body)
    return body


def deployment(
    name: str,
    region: str,
    options: AzureMLOptions,
    *,
    model: str,
    environment: str,
    capacity: int,
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """One version of the model behind an endpoint.

    Time and concurrency are always said: the service's defaults are 5 seconds and one request at a time.
    """
    body = {
        "location": region,
        "tags": dict(tags),
        "sku": {"name": "Default", "capacity": capacity},
        "properties": {
            "endpointComputeType": "Managed",
            "model": model,
            "environmentId": environment,
            "instanceType": options.instance_type,
            "environmentVariables": variables(options),
            "requestSettings": {
                "requestTimeout": f"PT{options.request_timeout_s}S",
                "maxConcurrentRequestsPerInstance": options.max_concurrent_requests,
            },
            "startupProbe": _probe(failures=max(1, options.start_s // _PERIOD_S)),
            "readinessProbe": _probe(failures=3),
            "livenessProbe": _probe(failures=6),
            "appInsightsEnabled": options.app_insights,
        },
    }
    check(Kind.DEPLOYMENT, name, body)
    return body


def variables(options: AzureMLOptions) -> dict[str, str]:
    """What the runtime in the container is told; its deadline is the door's, so that nobody works on dead requests."""
    told = {
        "MODELSERVE_CONTRACT": "azureml",
        "MODELSERVE_SERVER_TIMEOUT_S": str(options.request_timeout_s),
        "MODELSERVE_SERVER_MAX_BODY_MIB": str(options.max_body_mib),
    }
    if options.workers is not None:
        told["MODELSERVE_SERVER_WORKERS"] = str(options.workers)
    return {**told, **options.environment_variables}


def _identity(resource: str) -> dict[str, Any]:
    if not resource:
        return {"type": "SystemAssigned"}
    return {"type": "UserAssigned", "userAssignedIdentities": {resource: {}}}


def _probe(failures: int) -> dict[str, Any]:
    return {
        "initialDelay": "PT1S",
        "period": f"PT{_PERIOD_S}S",
        "timeout": "PT5S",
        "successThreshold": 1,
        "failureThreshold": failures,
    }
