"""What SageMaker refuses although every member of a request is right by itself: rules across members.

https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html (exclusions), deployment-guardrails.html
(canary sizes), async-inference-create-endpoint.html; APIReference/API_CreateTransformJob.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Request = Mapping[str, Any]
_MOST_ENVIRONMENT_BYTES = 32 * 1024
_MOST_VALUE_BYTES = 1024
_MOST_ENTRIES = 100
_MOST_TAGS = 50
_MOST_PAYLOADS_MB = 100
_MOST_TRANSFORM_INSTANCES = 100


def problems(operation: str, request: Request) -> list[str]:
    """What is wrong with the request of an operation of SageMaker's, in words for its author."""
    rules = {
        "CreateModel": _model,
        "CreateEndpointConfig": _config,
        "UpdateEndpoint": _update,
        "CreateEndpoint": _tagged,
        "CreateTransformJob": _transform,
    }
    return list(rules[operation](request)) if operation in rules else []


def _model(request: Request) -> Iterator[str]:
    container = request.get("PrimaryContainer")
    if (container is None) == (not request.get("Containers")):
        yield "a model has PrimaryContainer or Containers, one of them"
    for each in [container] if container else request.get("Containers", []):
        yield from _container(each)
    yield from _tagged(request)


def _container(container: Request) -> Iterator[str]:
    environment = container.get("Environment", {})
    if len(environment) > _MOST_ENTRIES:
        yield f"Environment has {len(environment)} entries, at most {_MOST_ENTRIES} are taken"
    sizes = [(len(key.encode()), len(value.encode())) for key, value in environment.items()]
    if any(max(pair) > _MOST_VALUE_BYTES for pair in sizes):
        yield f"a key or value of Environment is longer than {_MOST_VALUE_BYTES} bytes"
    if sum(map(sum, sizes)) > _MOST_ENVIRONMENT_BYTES:
        yield f"Environment takes more than {_MOST_ENVIRONMENT_BYTES} bytes together"
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        yield "ModelDataUrl and ModelDataSource exclude each other"
    if re.match(r"public\.ecr\.aws/", container.get("Image", "")):
        yield "an image of public.ecr.aws is not taken; push it to a registry of an account in the region"


def _config(request: Request) -> Iterator[str]:
    variants = request.get("ProductionVariants", [])
    names = [variant.get("VariantName") for variant in variants]
    if len(set(names)) != len(names):
        yield "two variants have the same name"
    for variant in variants:
        if ("ServerlessConfig" in variant) == ("InstanceType" in variant):
            yield "a variant has InstanceType or ServerlessConfig, one of them"
        if "InstanceType" in variant and "ModelName" in variant and variant.get("InitialInstanceCount", 0) < 1:
            yield "a variant with a model starts with InitialInstanceCount of at least 1"
    if any("ServerlessConfig" in variant for variant in variants):
        yield from _serverless(request)
    if request.get("ShadowProductionVariants") and (
        len(variants) != 1 or len(request["ShadowProductionVariants"]) != 1
    ):
        yield "a shadow variant stands beside exactly one production variant"
    yield from _tagged(request)


def _serverless(request: Request) -> Iterator[str]:
    variants = request["ProductionVariants"]
    if len(variants) > 1:
        yield "a serverless endpoint has one variant"
    for member in ("DataCaptureConfig", "AsyncInferenceConfig", "ShadowProductionVariants", "KmsKeyId", "VpcConfig"):
        if request.get(member):
            yield f"a serverless endpoint takes no {member}"
    config = variants[0]["ServerlessConfig"]
    if config.get("MemorySizeInMB", 1024) % 1024:
        yield "MemorySizeInMB goes in steps of 1024"
    if config.get("ProvisionedConcurrency", 0) > config.get("MaxConcurrency", 0):
        yield "ProvisionedConcurrency is above MaxConcurrency"


def _update(request: Request) -> Iterator[str]:
    policy = request.get("DeploymentConfig", {}).get("BlueGreenUpdatePolicy", {})
    routing = policy.get("TrafficRoutingConfiguration", {})
    bounds = {"CANARY": ("CanarySize", 1, 50), "LINEAR": ("LinearStepSize", 10, 50)}
    if routing.get("Type") not in bounds:
        return
    member, lowest, highest = bounds[routing["Type"]]
    size = routing.get(member)
    if size is None:
        yield f"{routing['Type']} needs {member}"
    elif size["Type"] == "CAPACITY_PERCENT" and not lowest <= size["Value"] <= highest:
        yield f"{member} must be {lowest} to {highest} percent, got {size['Value']}"


def _transform(request: Request) -> Iterator[str]:
    payload_mb, at_once = request.get("MaxPayloadInMB", 6), request.get("MaxConcurrentTransforms", 1)
    if payload_mb * max(1, at_once) > _MOST_PAYLOADS_MB:
        yield f"MaxPayloadInMB times MaxConcurrentTransforms is above {_MOST_PAYLOADS_MB}"
    if "BatchStrategy" in request and request["TransformInput"].get("SplitType", "None") == "None":
        yield "BatchStrategy needs a SplitType"
    count = request["TransformResources"]["InstanceCount"]
    if count > _MOST_TRANSFORM_INSTANCES:
        yield f"InstanceCount is {count}, at most {_MOST_TRANSFORM_INSTANCES} are taken"
    yield from _tagged(request)


def _tagged(request: Request) -> Iterator[str]:
    tags = request.get("Tags", [])
    keys = [tag["Key"] for tag in tags]
    if len(tags) > _MOST_TAGS:
        yield f"{len(tags)} tags, at most {_MOST_TAGS} are taken"
    if len(set(keys)) != len(keys):
        yield "a tag stands twice"
    if any(key.lower().startswith("aws:") for key in keys):
        yield "tags that begin with aws: are AWS's own"
