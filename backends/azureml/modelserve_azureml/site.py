"""Where an endpoint is, what version of a model it is to run, and how requests are divided among versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelserve.backend.marks import Marks
from modelserve.bundle import Bundle
from modelserve_azureml.arm import Arm, merged
from modelserve_azureml.assets import Assets
from modelserve_azureml.batch_door import BatchDoor
from modelserve_azureml.names import Workspace, deployment_name, tags
from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.storage import Store
from modelserve_azureml.validation import Kind, check


@dataclass(frozen=True, slots=True)
class Site:
    """One endpoint's place: the workspace, its region, and who talks to it."""

    workspace: Workspace
    arm: Arm
    assets: Assets
    options: AzureMLOptions
    store: Store
    door: BatchDoor

    @property
    def region(self) -> str:
        return str(self.arm.ask("GET", self.workspace.path)["location"])


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the model behind an endpoint: what a deploy or an update is to bring up."""

    site: Site
    endpoint: str
    name: str
    bundle: Bundle
    image: str
    capacity: int

    @property
    def deployment(self) -> str:
        return deployment_name(self.bundle.digest)

    @property
    def tags(self) -> dict[str, str]:
        return tags(self.site.options.tags, Marks.of(self.name, self.bundle.digest))


def route(
    site: Site,
    endpoint: str,
    live: Mapping[str, int],
    mirrored: Mapping[str, int] | None = None,
    *,
    deadline: float,
) -> None:
    """Divide requests among the versions, and change nothing else of the endpoint."""
    path = site.workspace.endpoint(endpoint)
    body = merged(site.arm.ask("GET", path), traffic=dict(live), mirrorTraffic=dict(mirrored or {}))
    check(Kind.ENDPOINT, endpoint, body)
    site.arm.operate("PUT", path, body, deadline=deadline)
