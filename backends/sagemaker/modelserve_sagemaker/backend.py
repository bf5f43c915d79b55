"""Amazon SageMaker as a place that runs models: an endpoint for each deployment.

    deploy:  pre-flight ─ files to S3 ─ model ─ configuration ─ endpoint ─ wait ─ scaling

An update takes the same way beside the version that runs, which goes when the new one answers.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from modelserve.backend import (
    Backend,
    Capability,
    DeploymentSpec,
    Endpoint,
    EndpointStatus,
    Finding,
    Rehearsal,
    Servable,
    State,
    Support,
    read_options,
)
from modelserve.backend.journal import Journal, settle, unfinished
from modelserve.backend.preflight import look_all, require_passed
from modelserve.backend.rehearsal import needing_its_packages
from modelserve.bundle import Bundle
from modelserve.bundle.manifest import Manifest
from modelserve.errors import ConfigError, DeploymentNotFoundError
from modelserve_sagemaker import logs, policy, scaling
from modelserve_sagemaker.checks import Checks, require_bundle
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.endpoint import SageMakerEndpoint, status_of
from modelserve_sagemaker.inventory import Found, Inventory
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.plan import Plan, first_replicas
from modelserve_sagemaker.release import Release
from modelserve_sagemaker.storage import Storage

_MACHINES_S = 900.0


class SageMakerBackend(Backend):
    """Endpoints of Amazon SageMaker, in one account and region."""

    name = "sagemaker"
    support: ClassVar[Mapping[Capability, Support]] = {
        Capability.SCALE: Support.FULL,
        Capability.SCALE_TO_ZERO: Support.NOT_IMPLEMENTED,  # but for mode serverless, see `supports`
        Capability.AUTOSCALE: Support.FULL,
        Capability.UPDATE: Support.FULL,
        Capability.ATTACH: Support.FULL,
        Capability.LOGS: Support.FULL,
        Capability.LIVE_CALLABLE: Support.IMPOSSIBLE,  # code from the network is never run
        Capability.BATCH: Support.FULL,
        Capability.REHEARSAL: Support.FULL,
    }
    options: ClassVar[Mapping[str, str]] = SageMakerOptions.described()

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = read_options(SageMakerOptions, self.name, options)
        self._account = Account(self._options)
        self._inventory = Inventory(self._account, self._options)

    def supports(self, capability: Capability) -> Support:
        if capability is Capability.SCALE_TO_ZERO and self._options.is_serverless:
            return Support.FULL
        return super().supports(capability)

    def deploy(
        self, servable: Servable, spec: DeploymentSpec, *, on_progress: Callable[[str], None] | None = None
    ) -> Endpoint:
        bundle, tell = require_bundle(servable), on_progress or (lambda _line: None)
        running = self._running(spec.name)
        if running is None:
            self._create(bundle, spec, tell)
        else:
            self._change(bundle, spec, running, tell)
        return self._endpoint(spec.name, bundle.manifest)

    def attach(self, name: str) -> Endpoint:
        status = status_of(name, self._account, self._options, self._inventory)
        manifest = Storage(self._account, self._options, name, status.digest).manifest()
        return self._endpoint(name, manifest)

    def list(self) -> list[EndpointStatus]:
        found = self._inventory.resources()
        running = {one.name for one in found if one.kind == "endpoint"}
        rest: dict[str, list[Found]] = defaultdict(list)
        for one in found:
            if one.marks.deployment not in running:
                rest[one.marks.deployment].append(one)
        statuses = [status_of(name, self._account, self._options, self._inventory) for name in sorted(running)]
        return statuses + [self._leftover(name, left) for name, left in sorted(rest.items())]

    def delete(self, name: str) -> None:
        self._inventory.remove_deployment(name)
        logs.remove(self._account, name)
        settle(list(unfinished(self.name, name)))

    def preflight(self, servable: Servable, spec: DeploymentSpec) -> Sequence[Finding]:
        return look_all(Checks(self._account, self._options, require_bundle(servable), spec).all())

    def policy(self) -> dict[str, Any]:
        return policy.documents(self._account, self._options)

    def rehearsal(self) -> Rehearsal:
        with needing_its_packages():
            from modelserve_sagemaker.rehearsal import open_rehearsal

        return open_rehearsal(self._options)

    def _create(self, bundle: Bundle, spec: DeploymentSpec, tell: Callable[[str], None]) -> None:
        tell("Looking before anything is created")
        require_passed(self.preflight(bundle, spec), f"Deploying {spec.name!r}")
        release = self._release(tell)
        plan = release.plan(bundle, spec.name, first_replicas(spec.scale))
        with Journal(self.name, spec.name) as journal:
            release.prepare(bundle, plan, journal)
            release.launch(plan, journal)
            if spec.wait:
                release.wait(plan, self._longest_s(spec))
                self._begin_scaling(spec, bundle.manifest, journal)

    def _begin_scaling(self, spec: DeploymentSpec, manifest: Manifest, journal: Journal) -> None:
        """What the number of machines to start with does not say already."""
        if spec.scale is None:
            return
        if self._options.is_serverless:
            with contextlib.closing(self._endpoint(spec.name, manifest)) as endpoint:
                endpoint.scale(spec.scale)
        elif not spec.scale.is_fixed:
            journal.will_create("scaling", spec.name, lambda: scaling.forget(self._account, spec.name))
            scaling.track(self._account, spec.name, spec.scale, self._options.instance_type)

    def _change(
        self, bundle: Bundle, spec: DeploymentSpec, running: dict[str, Any], tell: Callable[[str], None]
    ) -> None:
        """Another version of what runs already; nothing, where it is this one."""
        if running["EndpointStatus"] in {"Failed", "OutOfService", "Deleting"}:
            tell(f"{spec.name} has failed before or is being deleted, and makes way")
            self.delete(spec.name)
            self._create(bundle, spec, tell)
            return
        plan = self._successor(bundle, spec.name, running, tell)
        if plan.config_name == running["EndpointConfigName"]:
            tell(f"{spec.name} runs this model already")
            if spec.wait:
                self._release(tell).wait(plan, self._longest_s(spec))
            return
        self._move(bundle, plan, running["EndpointConfigName"], self._longest_s(spec), tell)

    def _swapped(self, name: str, servable: Servable) -> Manifest:
        """What `SageMakerEndpoint.update` does."""
        bundle = require_bundle(servable)
        running = self._running(name)
        if running is None:
            raise DeploymentNotFoundError(f"There is no deployment {name!r} any more; serve the model again.")
        plan = self._successor(bundle, name, running, lambda _line: None)
        if plan.config_name != running["EndpointConfigName"]:
            spec = DeploymentSpec(name)
            self._move(bundle, plan, running["EndpointConfigName"], self._longest_s(spec), lambda _line: None)
        return bundle.manifest

    def _move(self, bundle: Bundle, plan: Plan, old_config: str, timeout_s: float, tell: Callable[[str], None]) -> None:
        """Blue to green; what the old version alone needed goes when the new one answers, and only then."""
        require_passed(self.preflight(bundle, DeploymentSpec(plan.deployment)), f"Updating {plan.deployment!r}")
        release = self._release(tell)
        before = self._machine(old_config)
        with Journal(self.name, plan.deployment) as journal:
            release.prepare(bundle, plan, journal)
            release.update(plan)
            release.wait(plan, timeout_s)
        self._aim_anew(plan.deployment, before)
        self._forget_version(plan, old_config)

    def _aim_anew(self, name: str, before: str) -> None:
        """A share of the processors is another figure on machines with more of them."""
        machine = self._options.instance_type
        if self._options.is_serverless or machine == before:
            return
        scale = scaling.tracked(self._account, name, before)
        if scale is not None and scale.target_cpu is not None:
            scaling.check(scale, self._options)
            scaling.track(self._account, name, scale, machine)

    def _machine(self, config: str) -> str:
        described = self._account.call("sagemaker", "describe_endpoint_config", EndpointConfigName=config)
        return str(described["ProductionVariants"][0].get("InstanceType", ""))

    def _forget_version(self, plan: Plan, old_config: str) -> None:
        old = self._inventory.resources(plan.deployment)
        # Batch jobs go on with the model that they began with; it goes with the next update, or with the deployment.
        at_work = self._inventory.models_at_work(old)
        needed = {plan.digest} | {one.marks.digest for one in old if one.kind == "transform-job"}
        for one in old:
            if one.kind == "endpoint-config" and one.name == old_config:
                self._inventory.remove(one.kind, one.name)
            if one.kind == "model" and one.name not in {plan.model_name, *at_work}:
                self._inventory.remove(one.kind, one.name)
        for digest in {one.marks.digest for one in old} - needed:
            Storage(self._account, self._options, plan.deployment, digest).remove()

    def _successor(self, bundle: Bundle, name: str, running: dict[str, Any], tell: Callable[[str], None]) -> Plan:
        """The plan of the next version: it starts with as many machines as the first one did; scaling is kept."""
        config = self._account.call(
            "sagemaker", "describe_endpoint_config", EndpointConfigName=running["EndpointConfigName"]
        )
        replicas = config["ProductionVariants"][0].get("InitialInstanceCount", 1)
        return self._release(tell).plan(bundle, name, replicas)

    def _running(self, name: str) -> dict[str, Any] | None:
        """The endpoint of that name.

        Raises:
            ConfigError: it is there, and somebody else's.
        """
        described = self._inventory.describe_endpoint(name)
        if described is None:
            return None
        if self._inventory.marks("endpoint", name) is None:
            raise ConfigError(f"Endpoint {name!r} exists and was not made by modelserve. Choose another name.")
        return described

    def _endpoint(self, name: str, manifest: Manifest) -> SageMakerEndpoint:
        return SageMakerEndpoint(name, manifest, self._account, self._options, self._swapped)

    def _release(self, tell: Callable[[str], None]) -> Release:
        return Release(self._account, self._options, self._inventory, tell)

    def _longest_s(self, spec: DeploymentSpec) -> float:
        options = self._options
        return spec.timeout_s or options.download_timeout_s + options.startup_timeout_s + _MACHINES_S + (
            options.canary_wait_s if options.canary_percent else 0
        )

    def _leftover(self, name: str, found: Sequence[Found]) -> EndpointStatus:
        what = ", ".join(f"{one.kind} {one.name}" for one in found)
        message = f"Left by a deploy that did not end: {what}. Remove it with: modelserve delete {name}"
        return EndpointStatus(name, self.name, State.FAILED, found[0].marks.digest, None, message=message)
