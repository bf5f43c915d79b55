"""One Vertex AI endpoint with the model behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from modelserve.backend import (
    DeploymentSpec,
    Endpoint,
    EndpointStatus,
    Job,
    Limits,
    ReplyFuture,
    Request,
    Scale,
    Servable,
    WorkPart,
)
from modelserve.backend.preflight import require_passed
from modelserve.bundle import Bundle
from modelserve.bundle.manifest import Manifest
from modelserve.errors import (
    DeadlineError,
    DeploymentClosedError,
    DeploymentNotFoundError,
    NotReadyError,
    NotSupportedError,
)
from modelserve_vertex import names, requests, state, traffic
from modelserve_vertex.calls import Calls
from modelserve_vertex.deploying import Deploying, require_bundle
from modelserve_vertex.inventory import remove
from modelserve_vertex.limits import KIND_LIMITS
from modelserve_vertex.logs import lines
from modelserve_vertex.options import EndpointKind
from modelserve_vertex.preflight import findings
from modelserve_vertex.target import Target
from modelserve_vertex.way import way_to

#: The header grows on its way by the outputs that are spelt out.
_HEADER_ROOM_BYTES = 16 << 10
_PARALLEL = 8


class VertexEndpoint(Endpoint):
    """An endpoint as Vertex AI sees it.

    Args:
        manifest: Of the bundle that it answers with, where it is known already.
    """

    def __init__(self, target: Target, name: str, manifest: Manifest | None = None) -> None:
        self.name = name
        self._target = target
        self._resource = target.endpoint(name)
        self._lock = threading.Lock()
        self._calls: Calls | None = None
        self._closed = False
        self._kind = target.options.endpoint
        self._describe(manifest or self._found_manifest())

    @property
    def limits(self) -> Limits:
        kind = KIND_LIMITS[self._kind]
        longest = kind.timeout_s if kind.timeout_is_fixed else self._target.options.inference_timeout_s
        return Limits(
            request_bytes=kind.payload_bytes - _HEADER_ROOM_BYTES,
            timeout_s=longest,
            parallel=min(_PARALLEL, self._target.options.connections),
        )

    def submit(self, request: Request) -> ReplyFuture:
        return self._open().submit(request, self.signature.primary)

    def scale(self, scale: Scale) -> None:
        self._check_open()
        found = self._found()
        deadline = time.monotonic() + self._target.options.deploy_timeout_s
        deployed = state.answering(found)
        if scale.maximum == 0:
            self._rest(found)
            return
        if deployed is None:
            self._wake(found, scale, deadline)
            return
        self._target.resources.mutate(requests.mutate_replicas(self._resource, deployed.id, scale), deadline)
        self._wait_replicas(scale.minimum, deadline)

    def status(self) -> EndpointStatus:
        self._check_open()
        return state.status(self._target.resources, self._found())

    def update(self, servable: Servable) -> None:
        self._check_open()
        self._found()  # an update creates nothing under a name that is gone
        self.converge(require_bundle(servable), None, wait=True, tell=lambda _line: None)

    def converge(
        self,
        bundle: Bundle,
        scale: Scale | None,
        *,
        wait: bool,
        tell: Callable[[str], None],
        timeout_s: float | None = None,
    ) -> None:
        """Have it answer with this bundle; what is so already is left as it is."""
        self._look_before(bundle, scale)
        deploying = self._deploying(bundle, tell, timeout_s)
        found = deploying.standing()
        self._refuse_other_kind(found)
        if not deploying.is_done(found):
            kept = self._standing_scale(found)
            deploying.run(bundle, found, scale or kept, wait=wait)
        self._describe(bundle.manifest)
        self._reconnect()

    def logs(self) -> Iterable[str]:
        self._check_open()
        return lines(self._target.google, self._resource)

    def batch(self, name: str, parts: Iterable[WorkPart]) -> Job:
        self._check_open()
        return self._target.batches(self.name).start(name, self._found(), parts)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            calls, self._calls = self._calls, None
        if calls is not None:
            calls.close()

    def delete(self) -> None:
        remove(self._target, self.name)
        self.close()

    def _look_before(self, bundle: Bundle, scale: Scale | None) -> None:
        """Pre-flight where nothing stands: before the image is built, and before anything is created."""
        if scale is not None and scale.maximum == 0:
            raise NotSupportedError("A model is deployed with at least one replica. Let it rest by scale(0) later.")
        if self._target.resources.endpoint(self._resource) is None:
            checked = findings(self._target, bundle, DeploymentSpec(self.name, scale))
            require_passed(checked, f"Deploying {self.name!r}")

    def _deploying(self, bundle: Bundle, tell: Callable[[str], None], timeout_s: float | None) -> Deploying:
        target = self._target
        return Deploying(
            target.resources,
            target.storage(self.name),
            target.batches(self.name),
            target.recipe(self.name, bundle.digest, target.image.ensured(tell)),
            deadline=time.monotonic() + (timeout_s or target.options.deploy_timeout_s),
            tell=tell,
        )

    def _refuse_other_kind(self, found: Any | None) -> None:
        if found is not None and state.kind(found) is not self._kind:
            raise NotSupportedError(
                f"{self.name!r} is an endpoint of kind {state.kind(found).value!r}, and none becomes another kind. "
                f"Delete it before it is served as {self._kind.value!r}, or choose another name."
            )

    def _standing_scale(self, found: Any | None) -> Scale:
        """The replicas that the model which is to be replaced has; one where there is none."""
        standing = None if found is None else state.answering(found)
        if standing is None:
            return Scale.fixed(1)
        if self._kind is EndpointKind.PRIVATE:
            raise NotSupportedError(
                f"{self.name!r} lies in a peered network, where an endpoint holds one model. "
                "Use endpoint = 'psc', or delete it and serve the new model."
            )
        return requests.scale_of(standing)

    def _describe(self, manifest: Manifest) -> None:
        self.signature = manifest.signature
        self.rows_independent = manifest.rows_independent

    def _found(self) -> Any:
        found = self._target.resources.endpoint(self._resource)
        if found is None or names.marks(found) is None:
            whose = "none" if found is None else "one that modelserve did not make"
            raise DeploymentNotFoundError(
                f"There is no deployment {self.name!r} in {self._target.google.parent}: {whose} of that name exists. "
                "'modelserve list' shows those that do."
            )
        return found

    def _found_manifest(self) -> Manifest:
        found = self._found()
        self._kind, marks = state.kind(found), names.marks(found)
        assert marks is not None
        return self._target.storage(self.name).manifest(marks.digest)

    def _rest(self, found: Any) -> None:
        """Take every model off the endpoint; name, registration and bundle stay."""
        for deployed in found.deployed_models:
            self._target.resources.undeploy(self._resource, deployed.id)

    def _wake(self, found: Any, scale: Scale, deadline: float) -> None:
        """Deploy again the model that rests."""
        resources = self._target.resources
        model = state.registered(resources, found)
        if model is None:
            raise NotReadyError(f"{self.name!r} rests, and its model is no longer registered. Serve the model again.")
        split = {traffic.INCOMING: 100}
        request = requests.deploy_model(self._resource, model.name, self._target.options, scale, split)
        resources.wait_deploy(resources.start_deploy(request), deadline, lambda _stage: None)

    def _wait_replicas(self, minimum: int, deadline: float) -> None:
        """The operation ends when the number is accepted; this waits until they are there."""
        while True:
            deployed = state.answering(self._found())
            if deployed is not None and state.available(deployed) == minimum:
                return
            if (
                deployed is not None
                and not requests.scale_of(deployed).is_fixed
                and state.available(deployed) > minimum
            ):
                return
            if time.monotonic() > deadline:
                raise DeadlineError(
                    f"{self.name!r} has not {minimum} replicas in time; it goes on. Look at its status."
                )
            time.sleep(self._target.options.poll_s)

    def _open(self) -> Calls:
        with self._lock:
            if self._closed:
                raise _closed(self.name)
            if self._calls is None:
                self._calls = self._connected()
            return self._calls

    def _reconnect(self) -> None:
        """A private endpoint's address is its deployed model's; the others keep theirs."""
        if self._kind is not EndpointKind.PRIVATE:
            return
        with self._lock:
            calls, self._calls = self._calls, None
        if calls is not None:
            calls.close()

    def _connected(self) -> Calls:
        google, options = self._target.google, self._target.options
        way = way_to(self._found(), google.api_address, options.predict_address, streams=options.streamed_answers)
        return Calls(way, google.credentials, options)

    def _check_open(self) -> None:
        if self._closed:
            raise _closed(self.name)


def _closed(name: str) -> DeploymentClosedError:
    return DeploymentClosedError(f"Deployment {name!r} was closed. Attach to it again.")
