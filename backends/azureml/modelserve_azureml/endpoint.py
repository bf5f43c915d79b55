"""One managed online endpoint: asked, scaled, updated, looked at, deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import cached_property
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
from modelserve.backend.journal import Journal
from modelserve.backend.preflight import look_all, require_passed
from modelserve.bundle import Bundle
from modelserve.bundle.manifest import signature_from_json
from modelserve.errors import (
    DeploymentClosedError,
    InvalidScaleError,
    NotReadyError,
    NotSupportedError,
)
from modelserve.tensors import Signature
from modelserve_azureml import autoscale, batch, deploying, logs
from modelserve_azureml.limits import LARGEST_CAPACITY
from modelserve_azureml.names import marks
from modelserve_azureml.preflight import update_checks
from modelserve_azureml.reach import Reach
from modelserve_azureml.scoring import Keys, Scoring
from modelserve_azureml.site import Site, Version

_MIB = 1 << 20
_PARALLEL = 8
_DESCRIBE_S = 30.0
_STATES = {
    "Creating": State.STARTING,
    "Scaling": State.UPDATING,
    "Updating": State.UPDATING,
    "Deleting": State.DRAINING,
    "Succeeded": State.READY,
    "Failed": State.FAILED,
    "Canceled": State.FAILED,
}


class AzureMLEndpoint(Endpoint):
    """An endpoint as its workspace sees it.

    Args:
        name: The deployment's name.
        endpoint: The endpoint's own, unique in the region.
        content: The endpoint as the resource manager shows it.
        image: Gives the image that a new version runs, when there is one.
        bundle: What was just deployed; without it the model is asked what it takes.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        content: Any,
        site: Site,
        keys: Keys,
        reach: Reach,
        *,
        image: Callable[[Callable[[str], None]], str],
        bundle: Bundle | None = None,
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self._site = site
        self._image = image
        self._path = site.workspace.endpoint(endpoint)
        self._scoring = Scoring(content["properties"].get("scoringUri") or "", keys, site.options, reach)
        self._changes = threading.Lock()
        self._closed = False
        if bundle is not None:
            self._take(bundle)

    @property
    def limits(self) -> Limits:
        return Limits(
            request_bytes=self._site.options.max_body_mib * _MIB,
            timeout_s=float(self._site.options.request_timeout_s),
            parallel=_PARALLEL,
        )

    def submit(self, request: Request) -> ReplyFuture:
        self._check_open()
        return self._scoring.submit(request, self.signature.primary)

    def scale(self, scale: Scale) -> None:
        self._check_open()
        check_scale(scale)
        with self._changes:
            site, deployment = self._site, self._live()
            name, capacity = deployment["name"], int(deployment["sku"]["capacity"])
            wanted = min(max(capacity, scale.minimum), scale.maximum)
            # First of all nobody else may choose the number.
            setting = site.workspace.autoscale(self._endpoint, name)
            site.arm.ask("DELETE", setting, version=autoscale.API_VERSION)
            if wanted != capacity:
                body = {"sku": {"name": deployment["sku"]["name"], "capacity": wanted}}
                deadline = time.monotonic() + site.options.timeout_s
                site.arm.operate("PATCH", deployment["id"], body, deadline=deadline)
            if not scale.is_fixed:
                deploying.put_autoscale(site, self._endpoint, name, scale, wanted)

    def status(self) -> EndpointStatus:
        self._check_open()
        return look(self._site, self._site.arm.ask("GET", self._path))

    def update(self, servable: Servable) -> None:
        self._check_open()
        self.update_to(require_bundle(servable), lambda _line: None)

    def update_to(self, bundle: Bundle, tell: Callable[[str], None]) -> None:
        """As `update`, telling how far it is; the same model changes nothing."""
        with self._changes:
            self._replace(bundle, tell)
        self._take(bundle)

    def logs(self) -> Iterable[str]:
        self._check_open()
        for deployment in self._site.arm.every(f"{self._path}/deployments"):
            yield from logs.tail(self._site.arm, deployment["id"])

    def batch(self, name: str, parts: Iterable[WorkPart]) -> Job:
        self._check_open()
        return batch.begin(self._site, self._endpoint, self.name, name, parts, self._live())

    def close(self) -> None:
        self._closed = True
        self._scoring.close()

    def delete(self) -> None:
        with self._changes:
            erase(self._site, self._endpoint, self.name)
        self.close()

    @cached_property
    def _said(self) -> dict[str, Any]:
        return self._scoring.describe(_DESCRIBE_S)

    @cached_property
    def signature(self) -> Signature:  # type: ignore[override]  # found when it is first asked for
        return signature_from_json(self._said["parameters"]["signature"])

    @cached_property
    def rows_independent(self) -> bool:  # type: ignore[override]  # as above
        return bool(self._said["parameters"]["rows_independent"])

    def _take(self, bundle: Bundle) -> None:
        self.__dict__ |= {"signature": bundle.signature, "rows_independent": bundle.rows_independent}

    def _replace(self, bundle: Bundle, tell: Callable[[str], None]) -> None:
        site, old = self._site, self._live()
        found = marks(old)
        if found is not None and found.digest == bundle.digest:
            return
        scale = _scale(site, self._endpoint, old)
        require_passed(look_all(update_checks(site, old["sku"]["capacity"])), f"Updating {self.name!r}")
        version = Version(site, self._endpoint, self.name, bundle, self._image(tell), old["sku"]["capacity"])
        deadline = time.monotonic() + site.options.timeout_s
        with Journal("azureml", self.name) as journal:
            deploying.replace(version, old["name"], scale, journal, deadline, tell)
        deploying.tidy(site, self._endpoint, version.deployment)
        deploying.tag(site, self._endpoint, version.tags, deadline=deadline)

    def _live(self) -> Any:
        found = live(self._site, self._site.arm.ask("GET", self._path))
        if found is None:
            raise NotReadyError(f"No version of the model gets requests at endpoint {self._endpoint!r}.")
        return found

    def _check_open(self) -> None:
        if self._closed:
            raise DeploymentClosedError(f"Deployment {self.name!r} was closed. Attach to it again.")


def require_bundle(servable: Servable) -> Bundle:
    """Refuse what is not portable.

    Raises:
        NotSupportedError: it is a live callable.
    """
    if not isinstance(servable, Bundle):
        raise NotSupportedError(
            f"Azure Machine Learning runs portable models only: {servable.reason} Serve it on a local target."
        )
    return servable


def check_scale(scale: Scale) -> None:
    """Refuse what no managed endpoint can have.

    Raises:
        NotSupportedError: none at all, or a target that is not measured.
        InvalidScaleError: more than there can be.
    """
    if scale.minimum == 0:
        raise NotSupportedError(
            "A managed endpoint of Azure has at least one instance, which is billed. Delete it while it is not needed "
            "and deploy it again."
        )
    if scale.maximum > LARGEST_CAPACITY:
        raise InvalidScaleError(f"A version of a model has at most {LARGEST_CAPACITY} instances, got {scale.maximum}.")
    if not scale.is_fixed:
        autoscale.target(scale)


def live(site: Site, content: Any) -> Any:
    """The version that gets most requests; None where none gets any."""
    traffic = {name: share for name, share in (content["properties"].get("traffic") or {}).items() if share}
    if not traffic:
        return None
    name = max(traffic, key=lambda each: traffic[each])
    return site.arm.find(site.workspace.deployment(content["name"], name))


def look(site: Site, content: Any) -> EndpointStatus:
    """An endpoint's status, from what the resource manager shows of it."""
    found = marks(content)
    assert found is not None  # only those of ours are looked at
    deployment = live(site, content)
    state = _STATES.get(content["properties"].get("provisioningState", ""), State.STARTING)
    if deployment is None:
        # What a deploy left half-made: it answers nothing, and may be billed.
        state = State.FAILED if state is State.READY else state
        return EndpointStatus(found.deployment, "azureml", state, found.digest, None, (), "No version gets requests.")
    own = _STATES.get(deployment["properties"].get("provisioningState", ""), State.STARTING)
    running = marks(deployment)
    return EndpointStatus(
        found.deployment,
        "azureml",
        own if state is State.READY else state,
        running.digest if running else found.digest,
        _scale(site, content["name"], deployment),
        _replicas(deployment, own),
    )


def erase(site: Site, endpoint: str, name: str) -> None:
    """Remove an endpoint and all that was made for it. Quiet when it is gone already."""
    content = site.arm.find(site.workspace.endpoint(endpoint))
    if content is not None:
        deploying.require_ours(content, name)
        for deployment in site.arm.every(f"{site.workspace.endpoint(endpoint)}/deployments"):
            setting = site.workspace.autoscale(endpoint, deployment["name"])
            site.arm.ask("DELETE", setting, version=autoscale.API_VERSION)
        deploying.remove(site.arm, site.workspace.endpoint(endpoint))
    # After what bills whether asked or not, and before the model that jobs answer by.
    batch.remove_all(site, endpoint)
    site.assets.forget_all(endpoint)


def _scale(site: Site, endpoint: str, deployment: Any) -> Scale:
    setting = site.arm.find(site.workspace.autoscale(endpoint, deployment["name"]), version=autoscale.API_VERSION)
    return Scale.fixed(int(deployment["sku"]["capacity"])) if setting is None else autoscale.read(setting)


def _replicas(deployment: Any, state: State) -> tuple[ReplicaStatus, ...]:
    """Azure tells how many instances there are, and nothing of each."""
    kind = {"instance_type": deployment["properties"].get("instanceType", ""), "deployment": deployment["name"]}
    each = State.READY if state in {State.READY, State.UPDATING} else state
    count = int(deployment["sku"]["capacity"])
    return tuple(ReplicaStatus(f"{deployment['name']}-{number}", each, kind) for number in range(count))
