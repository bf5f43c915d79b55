"""A rehearsal: the stand-in, and a backend with the user's own options that talks to it."""

from __future__ import annotations

from typing import Any

from modelserve.backend import Rehearsal
from modelserve.errors import DeploymentNotFoundError
from modelserve.standin.loopback import LoopbackServer, answering
from modelserve_vertex import state
from modelserve_vertex.backend import VertexBackend
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.rehearsal.cloud import VertexCloud
from modelserve_vertex.rehearsal.rest import RestFront

_PROJECT = "rehearsed-project"
#: The stand-in is near, and its operations are quick.
_POLL_S = 0.02
_CANARY_HOLD_S = 1.0


class VertexRehearsal(Rehearsal):
    """Vertex AI with the options of one target."""

    only_live = (
        "Quota and capacity of the region, and how the quota counts replicas.",
        "Permissions: of the caller, of the service agent that pulls the image, of the container's service account.",
        "That the image is taken in by its digest, and that the container may read its copy of the bundle.",
        "Which statuses and headers of the container rawPredict passes on.",
        "Whether answers of streamRawPredict come as the container sends them, and may have more than 10 MB.",
        "How batch prediction cuts rows into requests, names its results, and writes numbers in them.",
        "How late Cloud Monitoring counts the answers by which a canary is judged.",
        "How long real stages take, and the cost.",
    )

    def __init__(self, options: VertexOptions, *, images: set[str] | None = None) -> None:
        project = options.project or _PROJECT
        bucket = options.bucket or f"{project}-modelserve-{options.region}"
        self.cloud = VertexCloud(bucket=bucket, region=options.region)
        self.cloud.images = images
        self._server = LoopbackServer(answering(RestFront(self.cloud))).start()
        self.cloud.address = self.cloud.deployed.address = self._server.url
        self.options = {
            **options.model_dump(exclude_defaults=True, mode="json"),
            "project": project,
            "bucket": bucket,
            "credentials": None,
            "api_address": self._server.url,
            "predict_address": self._server.url,
            "poll_s": _POLL_S,
            "canary_hold_s": _CANARY_HOLD_S,
        }
        self.backend = VertexBackend(self.options)

    @property
    def url(self) -> str:
        return self._server.url

    def leftovers(self) -> list[str]:
        return self.cloud.leftovers()

    def kill_replica(self, name: str) -> None:
        for endpoint in self.cloud.endpoints.all:
            if endpoint.name.endswith(f"/endpoints/{name}") and endpoint.deployed_models:
                deployed: Any = state.answering(endpoint)
                fleet = self.cloud.fleets.find(endpoint.name, deployed.id)
                assert fleet is not None
                fleet.kill_one()
                return
        raise DeploymentNotFoundError(f"Nothing runs under the name {name!r}.")

    def close(self) -> None:
        self.cloud.close()
        self._server.close()
