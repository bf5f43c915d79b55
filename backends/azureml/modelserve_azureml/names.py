"""What things are called in a workspace: addresses of resources, names derived from content, tags.

    deployment's name ──► endpoint   digits-3f9a1c       unique in the region, 32 letters at most
    bundle's digest   ──► deployment v-0123456789ab      a version of the model behind the endpoint
                      ──► model      digits-3f9a1c, version 0123456789abcdef0123
    image and routes  ──► environment digits-3f9a1c, version 89abcdef0123
    name of a batch   ──► digits-0123456789: all that is made for the job; ms-0123456789ab: its cluster

The same content has the same name, in every process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelserve.backend.marks import Marks
from modelserve_azureml.limits import LONGEST_NAME

API_VERSION = "2024-10-01"
PROVIDER = "Microsoft.MachineLearningServices"
_SEPARATOR = "-"
_SUFFIX_LETTERS = 6
#: How an endpoint's name ends, as a pattern.
SUFFIX = f"[0-9a-f]{{{_SUFFIX_LETTERS}}}"
_DIGEST_LETTERS = 12
_VERSION_LETTERS = 20
_JOB_LETTERS = 10


@dataclass(frozen=True, slots=True)
class Workspace:
    """The addresses of a workspace and of what lies in it, as paths below the resource manager."""

    subscription: str
    resource_group: str
    name: str

    @property
    def group(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"

    @property
    def path(self) -> str:
        return f"{self.group}/providers/{PROVIDER}/workspaces/{self.name}"

    def endpoint(self, endpoint: str) -> str:
        return f"{self.path}/onlineEndpoints/{endpoint}"

    def deployment(self, endpoint: str, deployment: str) -> str:
        return f"{self.endpoint(endpoint)}/deployments/{deployment}"

    def model(self, endpoint: str) -> str:
        return f"{self.path}/models/{endpoint}"

    def environment(self, endpoint: str) -> str:
        return f"{self.path}/environments/{endpoint}"

    def code(self, name: str) -> str:
        return f"{self.path}/codes/{name}/versions/1"

    def compute(self, cluster: str) -> str:
        return f"{self.path}/computes/{cluster}"

    def datastore(self, store: str) -> str:
        return f"{self.path}/datastores/{store}"

    def batch_endpoint(self, endpoint: str) -> str:
        return f"{self.path}/batchEndpoints/{endpoint}"

    def job(self, job: str) -> str:
        return f"{self.path}/jobs/{job}"

    def autoscale(self, endpoint: str, deployment: str) -> str:
        return f"{self.group}/providers/Microsoft.Insights/autoscalesettings/{endpoint}-{deployment}"

    def location(self, region: str) -> str:
        return f"/subscriptions/{self.subscription}/providers/{PROVIDER}/locations/{region}"


def endpoint_name(workspace: Workspace, name: str) -> str:
    """The endpoint's name for a deployment's name.

    Names are unique in a whole region, so the workspace is in it; the same name in it is always the same endpoint.
    """
    plain = re.sub(r"-{2,}", "-", name)[: LONGEST_NAME - _SUFFIX_LETTERS - 1].rstrip("-")
    return f"{plain}-{_digest(f'{workspace.path.lower()}/{name}')[:_SUFFIX_LETTERS]}"


def batch_name(workspace: Workspace, endpoint: str, job: str) -> str:
    """What everything of a batch job is called: its batch endpoint, unique in the region, its code, its environment."""
    plain = re.sub(r"-{2,}", "-", endpoint)[: LONGEST_NAME - _JOB_LETTERS - 1].rstrip("-")
    return f"{plain}-{_digest(f'{workspace.path.lower()}/{endpoint}/{job}')[:_JOB_LETTERS]}"


def cluster_name(batch: str) -> str:
    """The cluster of a batch job; Azure takes few letters there."""
    return f"ms-{_digest(batch)[:_DIGEST_LETTERS]}"


def deployment_name(digest: str) -> str:
    """The name of the version of the model that has this digest."""
    return f"v-{digest[:_DIGEST_LETTERS]}"


def model_version(digest: str) -> str:
    """The version of a registered model that has this digest."""
    return digest[:_VERSION_LETTERS]


def content_version(content: str) -> str:
    """A version by what it says."""
    return _digest(content)[:_DIGEST_LETTERS]


def tags(given: Mapping[str, str], marks: Marks) -> dict[str, str]:
    """The marks by which what modelserve made is found again, over the user's own tags."""
    return {**given, **marks.as_tags(_SEPARATOR)}


def marks(content: Mapping[str, Any]) -> Marks | None:
    """The marks of a resource; None where modelserve did not make it."""
    found = content.get("tags") or content["properties"].get("tags") or {}
    return Marks.read(found, _SEPARATOR)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
