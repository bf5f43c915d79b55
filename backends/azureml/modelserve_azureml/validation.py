"""What Azure would refuse, found before it is sent: Microsoft's schema made strict, and what only the pages say.

    body ──schema──► types, enumerations, unknown fields ──rules──► sums, bounds, combinations ──► problems

The stand-in of a rehearsal asks the same code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from importlib.resources import files
from typing import Any

from modelserve.errors import ConfigError
from modelserve_azureml.limits import (
    CLUSTER_NAME,
    LARGEST_CAPACITY,
    LARGEST_CLUSTER,
    LARGEST_MIRROR_PERCENT,
    LONGEST_NAME,
    LONGEST_REQUEST_S,
    LONGEST_TAG,
    LONGEST_TAG_NAME,
    MOST_TAGS,
    NAME,
    SHORTEST_NAME,
)

_SCHEMA = "arm-schema-2024-10-01.json"
_OPEN = (
    "OnlineRequestSettings",
    "ProbeSettings",
    "Sku",
    "CodeConfiguration",
    "OnlineEndpointProperties",
    "BatchEndpointProperties",
    "BatchDeploymentProperties",
    "BatchRetrySettings",
    "DeploymentResourceConfiguration",
    "AmlComputeProperties",
    "ScaleSettings",
    "CodeVersionProperties",
)
#: As published these allow no field but the one that says which of several shapes it is, and so nothing at all.
_CONTRADICTORY = ("Compute", "AssetReferenceBase")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")


class Kind(Enum):
    """The bodies that are known, by their name in the schema."""

    ENDPOINT = "workspaces_onlineEndpoints"
    DEPLOYMENT = "workspaces_onlineEndpoints_deployments"
    MODEL = "workspaces_models_versions"
    ENVIRONMENT = "workspaces_environments_versions"
    CODE = "workspaces_codes_versions"
    COMPUTE = "workspaces_computes"
    BATCH_ENDPOINT = "workspaces_batchEndpoints"
    BATCH_DEPLOYMENT = "workspaces_batchEndpoints_deployments"


def problems(kind: Kind, name: str, body: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a body, one sentence each."""
    shape = [
        f"{'/'.join(map(str, error.absolute_path)) or 'the body'}: {error.message[:200]}"
        for error in _checker(kind).iter_errors(body)
    ]
    return shape or list(_RULES[kind](name, body))


def check(kind: Kind, name: str, body: Mapping[str, Any]) -> None:
    """Refuse what Azure would refuse.

    Raises:
        ConfigError: naming everything that is wrong.
    """
    found = problems(kind, name, body)
    if found:
        raise ConfigError(f"Azure would refuse {kind.name.lower()} {name!r}: {'; '.join(found)}.")


def seconds(duration: str) -> int | None:
    """The seconds of an ISO 8601 duration of days, hours, minutes and seconds; None where it is none."""
    match = _DURATION.fullmatch(duration)
    if match is None or not any(match.groups()):
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _endpoint(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    yield from _name(name)
    yield from _tags(body.get("tags") or {})
    properties = body["properties"]
    live, mirrored = properties.get("traffic") or {}, properties.get("mirrorTraffic") or {}
    if any(not 0 <= share <= 100 for share in live.values()) or sum(live.values()) not in (0, 100):
        yield f"traffic must be from 0 to 100 each and sum to 0 or 100, got {dict(live)}"
    if len(mirrored) > 1 or any(not 0 <= share <= LARGEST_MIRROR_PERCENT for share in mirrored.values()):
        yield f"mirrorTraffic takes one deployment and at most {LARGEST_MIRROR_PERCENT}, got {dict(mirrored)}"
    both = [deployment for deployment, share in mirrored.items() if share and live.get(deployment)]
    if both:
        yield f"{both[0]!r} cannot have live and mirrored traffic at once"
    identity = body.get("identity") or {}
    if "UserAssigned" in identity.get("type", "") and not identity.get("userAssignedIdentities"):
        yield "identity of type UserAssigned names no identity"


def _deployment(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    yield from _name(name)
    yield from _tags(body.get("tags") or {})
    properties = body["properties"]
    capacity = (body.get("sku") or {}).get("capacity")
    if capacity is None or not 1 <= capacity <= LARGEST_CAPACITY:
        yield f"sku/capacity must be from 1 to {LARGEST_CAPACITY}, got {capacity}"
    for required in ("instanceType", "environmentId"):
        if not properties.get(required):
            yield f"properties/{required} is missing"
    settings = properties.get("requestSettings") or {}
    limit = seconds(settings.get("requestTimeout", "PT5S"))
    if limit is None or not 1 <= limit <= LONGEST_REQUEST_S:
        yield f"requestTimeout must be from 1 to {LONGEST_REQUEST_S} seconds, got {settings.get('requestTimeout')!r}"
    if settings.get("maxConcurrentRequestsPerInstance", 1) < 1:
        yield "maxConcurrentRequestsPerInstance must be at least 1"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from _probe(probe, properties.get(probe))
    if any(not key for key in properties.get("environmentVariables") or {}):
        yield "environmentVariables has a name that is empty"


def _probe(name: str, probe: Mapping[str, Any] | None) -> Iterator[str]:
    if probe is None:
        return
    if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        yield f"{name}/successThreshold must be 1"
    for field in ("initialDelay", "period", "timeout"):
        if field in probe and not seconds(probe[field]):
            yield f"{name}/{field} must be a duration of at least one second, got {probe[field]!r}"
    if any(probe.get(field, 1) < 1 for field in ("failureThreshold", "successThreshold")):
        yield f"{name}'s thresholds must be at least 1"


def _model(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    yield from _tags(body["properties"].get("tags") or {})
    if not body["properties"].get("modelUri"):
        yield "properties/modelUri is missing"


def _environment(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    yield from _tags(body["properties"].get("tags") or {})
    properties = body["properties"]
    if not (properties.get("image") or properties.get("build")):
        yield "properties/image is missing"
    routes = properties.get("inferenceConfig") or {}
    lacks = {"livenessRoute", "readinessRoute", "scoringRoute"} - set(routes)
    if routes and lacks:
        yield f"inferenceConfig lacks {', '.join(sorted(lacks))}"
    for route, content in routes.items():
        if not 0 < content["port"] < 65536 or not content["path"].startswith("/"):
            yield f"inferenceConfig/{route} needs a port and a path that begins with '/'"


def _code(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    yield from _tags(body["properties"].get("tags") or {})
    if not body["properties"].get("codeUri"):
        yield "properties/codeUri is missing"


def _compute(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    yield from _tags(body.get("tags") or {})
    if not CLUSTER_NAME.fullmatch(name):
        yield f"the name {name!r} must have 2 to 16 letters, digits and '-', and start with a letter"
    properties = body["properties"].get("properties") or {}
    scale = properties.get("scaleSettings") or {}
    low, high = scale.get("minNodeCount", 0), scale.get("maxNodeCount", 0)
    if not 0 <= low <= high or not 1 <= high <= LARGEST_CLUSTER:
        yield f"a cluster has from 0 to {LARGEST_CLUSTER} instances, got {low} to {high}"
    if not properties.get("vmSize"):
        yield "properties/properties/vmSize is missing"
    if not seconds(scale.get("nodeIdleTimeBeforeScaleDown", "PT120S")):
        yield f"nodeIdleTimeBeforeScaleDown must be a duration, got {scale['nodeIdleTimeBeforeScaleDown']!r}"


def _batch_endpoint(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    yield from _name(name)
    yield from _tags(body.get("tags") or {})
    if body["properties"]["authMode"] != "AADToken":
        yield f"a batch endpoint takes tokens of Entra ID only, got {body['properties']['authMode']!r}"


def _batch_deployment(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    yield from _name(name)
    yield from _tags(body.get("tags") or {})
    properties = body["properties"]
    for required in ("compute", "environmentId", "model", "codeConfiguration"):
        if not properties.get(required):
            yield f"properties/{required} is missing"
    for field in ("miniBatchSize", "maxConcurrencyPerInstance"):
        if properties.get(field, 1) < 1:
            yield f"{field} must be at least 1"
    if (properties.get("resources") or {}).get("instanceCount", 1) < 1:
        yield "resources/instanceCount must be at least 1"
    if properties.get("errorThreshold", -1) < -1:
        yield "errorThreshold must be at least -1"
    retry = properties.get("retrySettings") or {}
    if not seconds(retry.get("timeout", "PT30S")) or retry.get("maxRetries", 0) < 0:
        yield f"retrySettings need a duration and a number, got {dict(retry)}"


def _name(name: str) -> Iterator[str]:
    if not (SHORTEST_NAME <= len(name) <= LONGEST_NAME and NAME.fullmatch(name)):
        yield (
            f"the name {name!r} must have {SHORTEST_NAME} to {LONGEST_NAME} letters, digits and single '-', "
            "start with a letter and not end with '-'"
        )


def _tags(tags: Mapping[str, str]) -> Iterator[str]:
    if len(tags) > MOST_TAGS:
        yield f"at most {MOST_TAGS} tags are taken, got {len(tags)}"
    if any(len(name) > LONGEST_TAG_NAME or len(text) > LONGEST_TAG for name, text in tags.items()):
        yield f"a tag's name has at most {LONGEST_TAG_NAME} characters, its value {LONGEST_TAG}"


_RULES: Mapping[Kind, Callable[[str, Mapping[str, Any]], Iterator[str]]] = {
    Kind.ENDPOINT: _endpoint,
    Kind.DEPLOYMENT: _deployment,
    Kind.MODEL: _model,
    Kind.ENVIRONMENT: _environment,
    Kind.CODE: _code,
    Kind.COMPUTE: _compute,
    Kind.BATCH_ENDPOINT: _batch_endpoint,
    Kind.BATCH_DEPLOYMENT: _batch_deployment,
}


@lru_cache(maxsize=len(Kind))
def _checker(kind: Kind) -> Any:
    from jsonschema import Draft7Validator

    schema = json.loads((files("modelserve_azureml") / "data" / _SCHEMA).read_text("utf-8"))
    definitions = schema["definitions"]
    for name in _OPEN:
        _close(definitions[name])
    for name in _CONTRADICTORY:
        del definitions[name]["allOf"][0]["additionalProperties"]
    resource = {**schema["resources"][kind.value], "definitions": definitions}
    # A template names these in the body, a call of the resource manager in its address.
    resource["required"] = [name for name in resource["required"] if name not in {"apiVersion", "type", "name"}]
    resource["additionalProperties"] = False
    return Draft7Validator(resource)


def _close(node: Any) -> None:
    """Refuse fields that the schema does not name, in every object below `node`."""
    if isinstance(node, dict):
        if node.get("type") == "object" and node.get("properties"):
            node.setdefault("additionalProperties", False)
        for inner in node.values():
            _close(inner)
    elif isinstance(node, list):
        for inner in node:
            _close(inner)
