"""What one deployment is made of, settled before anything is asked of Vertex AI: names, container, machine.

Everything that decides over a name stands in here, so that the same deployment always has the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelserve_vertex import names
from modelserve_vertex.options import VertexOptions

PORT = 8080
PREDICT_ROUTE = "/predict"
HEALTH_ROUTE = "/ping"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One deployment.

    Attributes:
        digest: Of the bundle.
        parent: Project and region, as a resource name.
        image: Reference of the container's image.
        artifact_uri: Where the bundle lies, gs://.
    """

    name: str
    digest: str
    parent: str
    image: str
    artifact_uri: str
    options: VertexOptions

    @property
    def endpoint(self) -> str:
        """The endpoint's resource name."""
        return f"{self.parent}/endpoints/{self.name}"

    @property
    def model_id(self) -> str:
        return names.model_id(self.name, self._container())

    @property
    def model(self) -> str:
        """The registered model's resource name."""
        return f"{self.parent}/models/{self.model_id}"

    @property
    def deployed_id(self) -> str:
        return names.deployed_id(self.model_id, machine(self.options))

    @property
    def labels(self) -> dict[str, str]:
        return names.labels(self.name, self.digest, self.options.labels)

    @property
    def environment(self) -> dict[str, str]:
        """The container's variables, beside those that Vertex AI sets."""
        options = self.options
        # Said outright, although AIP_HTTP_PORT would tell as much.
        said = {"MODELSERVE_CONTRACT": "vertex", "MODELSERVE_SERVER_TIMEOUT_S": f"{options.inference_timeout_s:g}"}
        if options.workers is not None:
            said["MODELSERVE_SERVER_WORKERS"] = str(options.workers)
        if options.threads is not None:
            said["MODELSERVE_SERVER_THREADS"] = str(options.threads)
        return said | options.environment

    def _container(self) -> dict[str, Any]:
        """All that makes one registered model another one than the next."""
        return {
            "image": self.image,
            "artifact": self.artifact_uri,
            "environment": self.environment,
            "timeout_s": self.options.container_timeout_s,
            "kms_key": self.options.kms_key,
        }


def machine(options: VertexOptions) -> dict[str, Any]:
    """All that cannot be changed while a model stays deployed."""
    return {
        "machine_type": options.machine_type,
        "accelerator_type": options.accelerator_type,
        "accelerator_count": options.accelerator_count,
        "spot": options.spot,
        "service_account": options.service_account,
        "access_logging": options.access_logging,
    }
