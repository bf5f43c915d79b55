"""One SageMaker endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from modelserve.backend import (
    Endpoint,
    EndpointStatus,
    Job,
    Limits,
    ReplicaStatus,
    ReplyFuture,
    Request,
    Scale,
    Servable,
    State,
    WorkPart,
)
from modelserve.bundle.manifest import Manifest
from modelserve.errors import DeploymentClosedError, DeploymentNotFoundError, ModelServeError, QuotaError
from modelserve_sagemaker import logs, scaling
from modelserve_sagemaker.asynchronous import AsynchronousDoor
from modelserve_sagemaker.batch import Batch
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.inventory import Inventory
from modelserve_sagemaker.invoke import Door
from modelserve_sagemaker.limits import limits_of
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.storage import Storage
from modelserve_sagemaker.waiting import wait_until

_LONGEST_SCALE_S = 3600.0
_STATES = {
    "Creating": State.STARTING,
    "Updating": State.UPDATING,
    "SystemUpdating": State.UPDATING,
    "RollingBack": State.UPDATING,
    "InService": State.READY,
    "Deleting": State.DRAINING,
}


class SageMakerEndpoint(Endpoint):
    """One endpoint, held by whoever deployed it or attached to it.

    Args:
        swap: Makes the endpoint answer with another model.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        account: Account,
        options: SageMakerOptions,
        swap: Callable[[str, Servable], Manifest],
    ) -> None:
        self.name = name
        self._account = account
        self._options = options
        self._swap = swap
        self._inventory = Inventory(account, options)
        self._door: Door | AsynchronousDoor = Door(account, name)
        if options.is_asynchronous:
            self._door = AsynchronousDoor(account, name, Storage(account, options, name, manifest.digest))
        self._limits = limits_of(options)
        self._closed = False
        self._is(manifest)

    @property
    def limits(self) -> Limits:
        return self._limits

    def submit(self, request: Request) -> ReplyFuture:
        self._check_open()
        return self._door.submit(request, self.signature.primary)

    def scale(self, scale: Scale) -> None:
        self._check_open()
        scaling.check(scale, self._options)
        if not self._options.is_serverless and not scale.is_fixed:
            scaling.track(self._account, self.name, scale, self._options.instance_type)
            self._resize_into(scale)
            return
        if not self._options.is_serverless:
            # Otherwise Application Auto Scaling would undo it.
            scaling.forget(self._account, self.name)
        self._resize(scale)

    def status(self) -> EndpointStatus:
        self._check_open()
        return status_of(self.name, self._account, self._options, self._inventory)

    def update(self, servable: Servable) -> None:
        self._check_open()
        self._is(self._swap(self.name, servable))

    def logs(self) -> Iterable[str]:
        self._check_open()
        return logs.lines(self._account, self.name)

    def batch(self, name: str, parts: Iterable[WorkPart]) -> Job:
        self._check_open()
        return Batch(self._account, self._options, self._inventory, self.name).job(name, parts)

    def close(self) -> None:
        self._closed = True
        self._door.close()

    def delete(self) -> None:
        self._inventory.remove_deployment(self.name)
        logs.remove(self._account, self.name)
        self.close()

    def _is(self, manifest: Manifest) -> None:
        self.signature = manifest.signature
        self.rows_independent = manifest.rows_independent

    def _resize_into(self, scale: Scale) -> None:
        wanted = _variant(self._described()).get("DesiredInstanceCount", scale.minimum)
        within = min(max(wanted, scale.minimum), scale.maximum)
        if within != wanted:
            self._resize(Scale.fixed(within))

    def _resize(self, scale: Scale) -> None:
        self._account.call(
            "sagemaker",
            "update_endpoint_weights_and_capacities",
            EndpointName=self.name,
            DesiredWeightsAndCapacities=[scaling.desired(scale, self._options)],
        )
        wait_until(
            lambda: self._described()["EndpointStatus"] == "InService", _LONGEST_SCALE_S, f"Scaling {self.name!r}"
        )
        described = self._described()
        there = _variant(described).get("CurrentInstanceCount", scale.minimum)
        if not self._options.is_serverless and there < scale.minimum:
            raise QuotaError(
                f"Asked for {scale.minimum} replicas of {self.name!r}, there are {there}: "
                f"{described.get('FailureReason', 'SageMaker says no reason.')} Ask for fewer, or for more quota."
            )

    def _described(self) -> dict[str, Any]:
        described = self._inventory.describe_endpoint(self.name)
        if described is None:
            raise _missing(self.name, self._account)
        return described

    def _check_open(self) -> None:
        if self._closed:
            raise DeploymentClosedError(f"Deployment {self.name!r} was closed. Attach to it again.")


def status_of(name: str, account: Account, options: SageMakerOptions, inventory: Inventory) -> EndpointStatus:
    """An endpoint as AWS sees it now.

    Raises:
        DeploymentNotFoundError: there is none of ours by that name.
    """
    described = inventory.describe_endpoint(name)
    marks = None if described is None else inventory.marks("endpoint-config", described["EndpointConfigName"])
    if described is None or marks is None:
        raise _missing(name, account)
    state = _STATES.get(described["EndpointStatus"], State.FAILED)
    tracked = None
    with contextlib.suppress(ModelServeError):  # who may not look at the scaling still gets the rest
        tracked = scaling.tracked(account, name, options.instance_type)
    return EndpointStatus(
        name=name,
        backend="sagemaker",
        state=state,
        digest=marks.digest,
        scale=tracked or _fixed(described),
        replicas=_replicas(described, state),
        message=str(described.get("FailureReason", "")),
    )


def _variant(described: dict[str, Any]) -> dict[str, Any]:
    variants = described.get("ProductionVariants") or [{}]
    first: dict[str, Any] = variants[0]
    return first


def _fixed(described: dict[str, Any]) -> Scale | None:
    variant = _variant(described)
    serverless = variant.get("CurrentServerlessConfig")
    if serverless:
        return Scale(serverless.get("ProvisionedConcurrency", 0), serverless["MaxConcurrency"])
    count = variant.get("DesiredInstanceCount")
    return Scale.fixed(count) if count else None


def _replicas(described: dict[str, Any], state: State) -> tuple[ReplicaStatus, ...]:
    variant = _variant(described)
    if "CurrentServerlessConfig" in variant:
        # What is kept warm can be counted; without that there is one, which comes when it is asked.
        warm = variant["CurrentServerlessConfig"].get("ProvisionedConcurrency", 0)
        names = [f"warm-{index}" for index in range(warm)] or ["on-demand"]
        return tuple(ReplicaStatus(name, state, variant["CurrentServerlessConfig"]) for name in names)
    there, wanted = variant.get("CurrentInstanceCount", 0), variant.get("DesiredInstanceCount", 0)
    return tuple(
        ReplicaStatus(f"{variant['VariantName']}-{index}", State.READY if index < there else State.STARTING)
        for index in range(max(there, wanted))
    )


def _missing(name: str, account: Account) -> DeploymentNotFoundError:
    return DeploymentNotFoundError(
        f"There is no deployment {name!r} of modelserve in account {account.number}, region {account.region}."
    )
