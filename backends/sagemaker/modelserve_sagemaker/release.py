"""One version of one deployment, made step by step; each step is in the journal before it is taken.

    files in S3 ─ model ─ endpoint configuration ─ endpoint, or its update ─ wait

What is there already under the same name is the same, since names are made of what is sent, and is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from modelserve.backend.journal import Journal
from modelserve.bundle import Bundle
from modelserve.errors import BackendError, DeploymentNotFoundError, ModelServeError, QuotaError, StartError
from modelserve_sagemaker import images, logs
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.errors import is_present
from modelserve_sagemaker.inventory import Inventory
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.plan import Plan
from modelserve_sagemaker.registry import push_runtime
from modelserve_sagemaker.storage import Storage
from modelserve_sagemaker.waiting import wait_until

T = TypeVar("T")
Tell = Callable[[str], None]

#: AWS reads what was just written from elsewhere: for this long, what is missing may be on its way.
_SEEN_AFTER_S = 30.0
_CAPACITY = ("capacity", "ResourceLimitExceeded", "quota")


class Release:
    """Makes versions of deployments.

    Args:
        tell: Called with a line for people at each step.
    """

    def __init__(self, account: Account, options: SageMakerOptions, inventory: Inventory, tell: Tell) -> None:
        self._account = account
        self._options = options
        self._inventory = inventory
        self._tell = tell

    def plan(self, bundle: Bundle, deployment: str, replicas: int) -> Plan:
        """What would be sent."""
        storage = Storage(self._account, self._options, deployment, bundle.digest)
        image = self._image()
        return Plan(self._options, deployment, bundle.digest, image, storage.location, replicas)

    def _image(self) -> str:
        found = images.find(self._account, self._options)
        if found is None and self._options.push_image:
            push_runtime(self._account, self._options, self._tell)
            found = images.find(self._account, self._options)
        if found is None:
            raise images.missing(self._account, self._options)
        return found

    def prepare(self, bundle: Bundle, plan: Plan, journal: Journal) -> None:
        """Files, model and configuration: everything that costs nothing while it lies there."""
        storage = Storage(self._account, self._options, plan.deployment, plan.digest)
        if not storage.is_complete():
            journal.will_create("files", storage.location, storage.remove)
            storage.upload(bundle, self._tell)
        self._create("model", plan.model_name, "create_model", plan.create_model(), journal)
        self._create(
            "endpoint-config", plan.config_name, "create_endpoint_config", plan.create_endpoint_config(), journal
        )

    def launch(self, plan: Plan, journal: Journal) -> None:
        """The endpoint itself, from here on billed; it does not wait."""
        self._create("endpoint", plan.deployment, "create_endpoint", plan.create_endpoint(), journal)

    def update(self, plan: Plan) -> None:
        """Move the traffic to this version; it does not wait."""
        self._tell(f"Updating {plan.deployment}")
        self._eventually(lambda: self._account.call("sagemaker", "update_endpoint", **plan.update_endpoint()))

    def wait(self, plan: Plan, timeout_s: float) -> None:
        """Until this version answers.

        Raises:
            StartError: it could not be brought up; after an update, the version before answers on.
            QuotaError: there are no machines for it.
            DeadlineError: it takes longer.
        """
        seen = _Seen(self._tell, plan.deployment)

        def is_there() -> bool:
            described = self._inventory.describe_endpoint(plan.deployment)
            status = seen.told(described)
            if status in {"Failed", "UpdateRollbackFailed", "OutOfService"}:
                raise self._failure(described or {})
            if status != "InService":
                return False
            assert described is not None
            if described["EndpointConfigName"] != plan.config_name:
                raise self._failure(described)
            return True

        wait_until(is_there, timeout_s, f"Bringing up {plan.deployment!r}")

    def _create(self, kind: str, name: str, operation: str, request: dict[str, Any], journal: Journal) -> None:
        if self._exists(kind, name):
            return
        self._tell(f"Creating {kind} {name}")
        entry = journal.will_create(kind, name, lambda: self._inventory.remove(kind, name))
        try:
            self._eventually(lambda: self._account.call("sagemaker", operation, **request))
        except ModelServeError as error:
            if error.__cause__ is None or not is_present(error.__cause__):
                raise
            # Another program made the same a moment ago: it is there, and not ours to undo.
            journal.forget(entry)

    def _exists(self, kind: str, name: str) -> bool:
        operation, parameter = _DESCRIBES[kind]
        try:
            self._account.call("sagemaker", operation, **{parameter: name})
        except DeploymentNotFoundError:
            return False
        return True

    def _eventually(self, call: Callable[[], T]) -> T:
        """What refers to something that was just made, which AWS may not see yet."""
        deadline = time.monotonic() + _SEEN_AFTER_S
        pause_s = 0.1
        while True:
            try:
                return call()
            except DeploymentNotFoundError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(pause_s)
            pause_s *= 2

    def _failure(self, described: dict[str, Any]) -> BackendError:
        reason = str(described.get("FailureReason") or "SageMaker says no reason.")
        if any(word in reason for word in _CAPACITY):
            return QuotaError(f"SageMaker has no machines for it: {reason} Try another instance_type or region.")
        tail = logs.tail(self._account, described["EndpointName"])
        return StartError(f"SageMaker could not bring it up: {reason} {tail}")


class _Seen:
    """Tells each new stage once, and gives an endpoint that is not seen yet its time."""

    def __init__(self, tell: Tell, deployment: str) -> None:
        self._tell = tell
        self._deployment = deployment
        self._last = ""
        self._deadline = time.monotonic() + _SEEN_AFTER_S

    def told(self, described: dict[str, Any] | None) -> str:
        if described is None:
            if time.monotonic() > self._deadline:
                raise DeploymentNotFoundError(f"Endpoint {self._deployment!r} is gone; something else deleted it.")
            return ""
        status = str(described["EndpointStatus"])
        line = f"{status}{_stages(described)}"
        if line != self._last:
            self._tell(f"{self._deployment}: {line}")
            self._last = line
        return status


def _stages(described: dict[str, Any]) -> str:
    pending = described.get("PendingDeploymentSummary", {}).get("ProductionVariants", [])
    statuses = [status["Status"] for variant in pending for status in variant.get("VariantStatus", [])]
    return f" ({', '.join(statuses)})" if statuses else ""


_DESCRIBES = {
    "model": ("describe_model", "ModelName"),
    "endpoint-config": ("describe_endpoint_config", "EndpointConfigName"),
    "endpoint": ("describe_endpoint", "EndpointName"),
}
