"""The Vertex AI backend: each deployment is one endpoint, with one model deployed to it.

Google's library takes a second to import, so everything that needs it is imported by the verbs that do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from modelserve.backend import (
    Backend,
    Capability,
    DeploymentSpec,
    Endpoint,
    EndpointStatus,
    Finding,
    Rehearsal,
    Servable,
    Support,
    read_options,
)
from modelserve.backend.rehearsal import needing_its_packages
from modelserve.errors import ConfigError, MissingExtraError
from modelserve_vertex.limits import require_streams
from modelserve_vertex.options import EndpointKind, VertexOptions

if TYPE_CHECKING:
    from modelserve_vertex.target import Target


class VertexBackend(Backend):
    """Runs models on Vertex AI."""

    name = "vertex"
    support: ClassVar[Mapping[Capability, Support]] = {
        Capability.SCALE: Support.FULL,
        # The field is in v1beta1 only, and called a preview there.
        Capability.SCALE_TO_ZERO: Support.NOT_IMPLEMENTED,
        Capability.REST: Support.FULL,
        Capability.AUTOSCALE: Support.FULL,
        Capability.UPDATE: Support.FULL,
        Capability.ATTACH: Support.FULL,
        Capability.LOGS: Support.FULL,
        Capability.LIVE_CALLABLE: Support.IMPOSSIBLE,  # code from the network is never run
        Capability.BATCH: Support.FULL,
        Capability.REHEARSAL: Support.FULL,
    }
    options: ClassVar[Mapping[str, str]] = VertexOptions.described()

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = read_options(VertexOptions, self.name, options)
        _check_installed()
        _check_together(self._options)
        self._opened: Target | None = None

    def deploy(
        self, servable: Servable, spec: DeploymentSpec, *, on_progress: Callable[[str], None] | None = None
    ) -> Endpoint:
        from modelserve_vertex.deploying import require_bundle
        from modelserve_vertex.endpoint import VertexEndpoint

        bundle = require_bundle(servable)
        tell = on_progress or (lambda _line: None)
        endpoint = VertexEndpoint(self._target, spec.name, bundle.manifest)
        endpoint.converge(bundle, spec.scale, wait=spec.wait, tell=tell, timeout_s=spec.timeout_s)
        return endpoint

    def attach(self, name: str) -> Endpoint:
        from modelserve_vertex.endpoint import VertexEndpoint

        return VertexEndpoint(self._target, name)

    def list(self) -> list[EndpointStatus]:
        from modelserve_vertex.inventory import statuses

        return statuses(self._target)

    def delete(self, name: str) -> None:
        from modelserve_vertex.inventory import remove

        remove(self._target, name)

    def preflight(self, servable: Servable, spec: DeploymentSpec) -> Sequence[Finding]:
        from modelserve_vertex.preflight import findings

        return findings(self._target, servable, spec)

    def policy(self) -> dict[str, Any]:
        from modelserve_vertex.policy import permissions

        return permissions(self._options)

    def rehearsal(self) -> Rehearsal:
        with needing_its_packages():
            from modelserve_vertex.rehearsal import VertexRehearsal
        return VertexRehearsal(self._options)

    @property
    def _target(self) -> Target:
        if self._opened is None:
            from modelserve_vertex.target import Target

            self._opened = Target(self._options)
        return self._opened


def _check_installed() -> None:
    if find_spec("google") is None or find_spec("google.cloud.aiplatform_v1") is None:
        raise MissingExtraError(
            "The backend 'vertex' needs google-cloud-aiplatform, which is not installed. "
            'Install it with: pip install "modelserve[vertex]"'
        )


def _check_together(options: VertexOptions) -> None:
    """Options that make no sense beside each other."""
    if not options.region:
        raise ConfigError("Backend 'vertex' needs the option region, such as region = 'europe-west4'.")
    if (options.endpoint is EndpointKind.PRIVATE) != bool(options.network):
        raise ConfigError("endpoint = 'private' and network belong together: give both, or neither.")
    if options.psc_projects and options.endpoint is not EndpointKind.PRIVATE_SERVICE_CONNECT:
        raise ConfigError("psc_projects is for endpoint = 'psc'.")
    if options.streamed_answers:
        require_streams(options.endpoint)
    if options.canary_percent and options.endpoint is EndpointKind.PRIVATE:
        raise ConfigError("A private endpoint holds one model and divides no traffic. Use endpoint = 'psc' instead.")
