"""What is sent for each resource of a batch job; checked before it leaves, as every body is (`validation.py`).

The service's own driver starts `batch_script.py` in an environment that holds what that driver needs, which our image
does not have: docs/decisions/0093-batch-at-azure.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import requires, version
from typing import Any

from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.validation import Kind, check

SCRIPT = "batch_script.py"
#: The only deployment behind a job's batch endpoint.
DEPLOYMENT = "batch"
BASE_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
_PYTHON = "3.12"
# What the driver imports. The pages name azureml-dataset-runtime[fuse] beside it, which cannot be installed together
# with any onnxruntime of today, and which Microsoft's own examples for this Python leave out.
_DRIVERS_PACKAGES = ("azureml-core",)
_EXTRAS = ("", "server")
_IDLE_S = 120
_RETRIES = 3


def cluster(name: str, region: str, options: AzureMLOptions, tags: Mapping[str, str]) -> dict[str, Any]:
    """A cluster that has no instances, and costs nothing, while there is nothing to do."""
    scale = {
        "minNodeCount": 0,
        "maxNodeCount": options.batch_instances,
        "nodeIdleTimeBeforeScaleDown": f"PT{_IDLE_S}S",
    }
    size = options.batch_instance_type or options.instance_type
    properties = {"vmSize": size, "vmPriority": "Dedicated", "osType": "Linux", "scaleSettings": scale}
    body = {
        "location": region,
        "tags": dict(tags),
        "identity": {"type": "SystemAssigned"},
        "properties": {"computeType": "AmlCompute", "properties": properties},
    }
    check(Kind.COMPUTE, name, body)
    return body


def environment(tags: Mapping[str, str]) -> dict[str, Any]:
    """Microsoft's image with what its driver and our runtime need; the service builds it, once for all jobs."""
    packages = [*_DRIVERS_PACKAGES, *_runtimes_packages()]
    conda = {
        "name": "modelserve-batch",
        "channels": ["conda-forge"],
        "dependencies": [f"python={_PYTHON}", "pip", {"pip": packages}],
    }
    # JSON is YAML, too.
    properties = {"image": BASE_IMAGE, "condaFile": json.dumps(conda), "osType": "Linux", "tags": dict(tags)}
    body = {"properties": properties}
    check(Kind.ENVIRONMENT, "environment", body)
    return body


def code(uri: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The uploaded folder with the script and modelserve."""
    body = {"properties": {"codeUri": uri, "isAnonymous": False, "tags": dict(tags)}}
    check(Kind.CODE, "code", body)
    return body


def endpoint(name: str, region: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The job's own door. It has one deployment, which is asked by its name."""
    body = {"location": region, "tags": dict(tags), "properties": {"authMode": "AADToken"}}
    check(Kind.BATCH_ENDPOINT, name, body)
    return body


def deployment(
    region: str,
    options: AzureMLOptions,
    *,
    model: str,
    environment: str,
    code: str,
    cluster: str,
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """How a job is answered: one file at a time for each instance, whose workers share it."""
    properties = {
        "model": {"referenceType": "Id", "assetId": model},
        "environmentId": environment,
        "codeConfiguration": {"codeId": code, "scoringScript": SCRIPT},
        "compute": cluster,
        "resources": {"instanceCount": options.batch_instances},
        "miniBatchSize": 1,
        "maxConcurrencyPerInstance": 1,
        # The script writes the answers itself: an appended row would be read and quoted by the service.
        "outputAction": "SummaryOnly",
        # A row that fails is told in its answer; a file that fails fails the job.
        "errorThreshold": 0,
        "retrySettings": {"maxRetries": _RETRIES, "timeout": f"PT{options.batch_part_s}S"},
        "environmentVariables": variables(options),
    }
    body = {"location": region, "tags": dict(tags), "properties": properties}
    check(Kind.BATCH_DEPLOYMENT, DEPLOYMENT, body)
    return body


def invocation(name: str, store: str, prefix: str) -> dict[str, Any]:
    """The request for a job: where its lines are, and where its answers go.

    Args:
        store: The datastore's name.
    """
    place = f"azureml://datastores/{store}/paths/{prefix}"
    return {
        "properties": {
            "name": name,
            "inputData": {"lines": {"jobInputType": "UriFolder", "uri": f"{place}/lines/"}},
            "outputData": {"answers": {"jobOutputType": "UriFile", "uri": f"{place}/answers"}},
        }
    }


def variables(options: AzureMLOptions) -> dict[str, str]:
    """What the script is told."""
    told = {} if options.workers is None else {"MODELSERVE_BATCH_WORKERS": str(options.workers)}
    return {**told, "MODELSERVE_BATCH_TIMEOUT_S": str(options.batch_part_s), **options.environment_variables}


def _runtimes_packages() -> list[str]:
    """What modelserve asks for, as it says it itself; the driver's packages have a word in the versions, too.

    Only what computes the answers is what it is here.
    """
    from packaging.requirements import Requirement

    found = []
    for line in requires("modelserve") or []:
        wanted = Requirement(line)
        markers = [{"extra": extra, "sys_platform": "linux", "python_version": _PYTHON} for extra in _EXTRAS]
        if wanted.marker is None or any(wanted.marker.evaluate(each) for each in markers):
            found.append(f"{wanted.name}{wanted.specifier}")
    return [line for line in found if not line.startswith("onnxruntime")] + [f"onnxruntime=={version('onnxruntime')}"]
