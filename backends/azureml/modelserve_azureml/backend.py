"""The Azure Machine Learning backend: managed online endpoints of one workspace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from modelserve.backend import (
    Backend,
    Capability,
    DeploymentSpec,
    Endpoint,
    EndpointStatus,
    Finding,
    Rehearsal,
    Scale,
    Servable,
    Support,
    read_options,
)
from modelserve.backend.journal import Journal, settle, unfinished
from modelserve.backend.preflight import look_all, require_passed
from modelserve.bundle import Bundle
from modelserve.errors import DeploymentNotFoundError, NotReadyError, NotSupportedError
from modelserve_azureml import deploying, policies
from modelserve_azureml.arm import Arm
from modelserve_azureml.assets import Assets, require_packages
from modelserve_azureml.batch_door import BatchDoor
from modelserve_azureml.credentials import Credentials
from modelserve_azureml.endpoint import AzureMLEndpoint, check_scale, erase, live, look, require_bundle
from modelserve_azureml.images import runtime_image
from modelserve_azureml.leftovers import left_behind
from modelserve_azureml.names import Workspace, endpoint_name, marks
from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.preflight import checks
from modelserve_azureml.reach import Reach
from modelserve_azureml.scoring import Keys
from modelserve_azureml.site import Site, Version
from modelserve_azureml.storage import Store

_BUSY = {"Creating", "Updating", "Deleting", "Scaling"}


class AzureMLBackend(Backend):
    """A workspace of Azure Machine Learning.

    Args:
        credential: Anything with azure-core's `get_token`; by default whoever the options or the machine name.
    """

    name = "azureml"
    support: ClassVar[Mapping[Capability, Support]] = {
        Capability.SCALE: Support.FULL,
        Capability.SCALE_TO_ZERO: Support.IMPOSSIBLE,  # a managed endpoint has at least one instance
        Capability.REST: Support.IMPOSSIBLE,  # as above
        Capability.AUTOSCALE: Support.FULL,
        Capability.UPDATE: Support.FULL,
        Capability.ATTACH: Support.FULL,
        Capability.LOGS: Support.FULL,
        Capability.LIVE_CALLABLE: Support.IMPOSSIBLE,  # code of the application's process does not leave it
        Capability.BATCH: Support.FULL,
        Capability.REHEARSAL: Support.FULL,
    }
    options: ClassVar[Mapping[str, str]] = AzureMLOptions.described()

    def __init__(self, options: Mapping[str, Any], *, credential: Any = None) -> None:
        self._options = read_options(AzureMLOptions, self.name, options)
        self._credential = credential

    def deploy(
        self, servable: Servable, spec: DeploymentSpec, *, on_progress: Callable[[str], None] | None = None
    ) -> Endpoint:
        bundle, tell = require_bundle(servable), on_progress or (lambda _line: None)
        _check_spec(spec)
        require_packages()
        endpoint = self._endpoint_name(spec.name)
        content = self._site.arm.find(self._site.workspace.endpoint(endpoint))
        if content is not None:
            deploying.require_ours(content, spec.name)
            if live(self._site, content) is not None:
                return self._changed(content, bundle, spec, tell)
            self._refuse_while_busy(content, spec.name)
            tell("Removing what an earlier deploy left half-made")
            erase(self._site, endpoint, spec.name)
        return self._created(endpoint, bundle, spec, tell)

    def attach(self, name: str) -> Endpoint:
        endpoint = self._endpoint_name(name)
        content = self._site.arm.find(self._site.workspace.endpoint(endpoint))
        found = None if content is None else marks(content)
        if found is None or found.deployment != name:
            raise DeploymentNotFoundError(
                f"Workspace {self._options.workspace!r} has no deployment {name!r} (endpoint {endpoint!r})."
            )
        return self._endpoint(name, content)

    def list(self) -> list[EndpointStatus]:
        found = self._site.arm.every(f"{self._site.workspace.path}/onlineEndpoints")
        running = [look(self._site, content) for content in found if marks(content) is not None]
        known = {status.name for status in running}
        left = left_behind(self._site, {content["name"] for content in found})
        return [*running, *(status for status in left if status.name not in known)]

    def delete(self, name: str) -> None:
        erase(self._site, self._endpoint_name(name), name)
        settle(list(unfinished(self.name, name)))

    def preflight(self, servable: Servable, spec: DeploymentSpec) -> Sequence[Finding]:
        bundle = require_bundle(servable)
        return look_all(checks(self._site, self._credentials, bundle, spec, self._endpoint_name(spec.name)))

    def policy(self) -> dict[str, Any]:
        return policies.policy(self._site.workspace, self._options)

    def rehearsal(self) -> Rehearsal:
        # Its packages are an extra of their own.
        from modelserve_azureml.rehearsal import rehearsal

        return rehearsal(self._options)

    @cached_property
    def _reach(self) -> Reach:
        return Reach(self._options.proxy, self._options.ca)

    @cached_property
    def _credentials(self) -> Credentials:
        return Credentials(self._options, self._reach, self._credential)

    @cached_property
    def _site(self) -> Site:
        options = self._options
        workspace = Workspace(options.subscription, options.resource_group, options.workspace)
        arm = Arm(self._reach, self._credentials)
        who = (self._reach, self._credentials)
        return Site(
            workspace,
            arm,
            Assets(workspace, arm, *who),
            options,
            Store(workspace, options.datastore, arm, *who),
            BatchDoor(*who),
        )

    def _endpoint_name(self, name: str) -> str:
        return self._options.endpoint_name or endpoint_name(self._site.workspace, name)

    def _endpoint(self, name: str, content: Any, bundle: Bundle | None = None) -> AzureMLEndpoint:
        arm, auth = self._site.arm, content["properties"]["authMode"]
        keys = Keys(arm, self._credentials, self._site.workspace.endpoint(content["name"]), auth)
        return AzureMLEndpoint(
            name, content["name"], content, self._site, keys, self._reach, image=self._image, bundle=bundle
        )

    def _refuse_while_busy(self, content: Any, name: str) -> None:
        """Leave alone what somebody else is just making."""
        deployments = self._site.arm.every(f"{self._site.workspace.endpoint(content['name'])}/deployments")
        states = {one["properties"].get("provisioningState") for one in (content, *deployments)}
        if states & _BUSY:
            raise NotReadyError(
                f"Deployment {name!r} is being made or changed by another program. Try again when it is ready; if "
                f"that program is gone: modelserve delete {name}."
            )

    def _image(self, tell: Callable[[str], None]) -> str:
        return runtime_image(self._site, self._credentials, self._reach, tell)

    def _created(
        self, endpoint: str, bundle: Bundle, spec: DeploymentSpec, tell: Callable[[str], None]
    ) -> AzureMLEndpoint:
        deadline = time.monotonic() + (spec.timeout_s or self._options.timeout_s)
        tell("Checking account, quota and request")
        require_passed(self.preflight(bundle, spec), f"Deploying {spec.name!r} to Azure")
        capacity = 1 if spec.scale is None else spec.scale.minimum
        version = Version(self._site, endpoint, spec.name, bundle, self._image(tell), capacity)
        with Journal(self.name, spec.name) as journal:
            deploying.create(version, spec.scale, journal, deadline, tell)
            content = self._site.arm.ask("GET", self._site.workspace.endpoint(endpoint))
        return self._endpoint(spec.name, content, bundle)

    def _changed(
        self, content: Any, bundle: Bundle, spec: DeploymentSpec, tell: Callable[[str], None]
    ) -> AzureMLEndpoint:
        endpoint = self._endpoint(spec.name, content)
        endpoint.update_to(bundle, tell)
        wanted: Scale | None = spec.scale
        if wanted is not None and endpoint.status().scale != wanted:
            endpoint.scale(wanted)
        return endpoint


def _check_spec(spec: DeploymentSpec) -> None:
    if spec.scale is not None:
        check_scale(spec.scale)
    if not spec.wait:
        raise NotSupportedError(
            "Azure sends no requests to a version of a model until it is told to, after its start: somebody has to "
            "wait for that. Leave wait=True, or deploy in a thread."
        )
