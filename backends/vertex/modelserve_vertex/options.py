"""What the Vertex AI backend can be told."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from modelserve.backend import Options

Seconds = Annotated[float, Field(gt=0)]
_MOST_DEPLOY_S = 7200
_MOST_ANSWER_S = 3600


class EndpointKind(StrEnum):
    """How an endpoint is reached."""

    DEDICATED = "dedicated"
    SHARED = "shared"
    PRIVATE_SERVICE_CONNECT = "psc"
    PRIVATE = "private"

    @property
    def is_shared_host(self) -> bool:
        """Whether requests go to the region's own host, among everybody else's."""
        return self is EndpointKind.SHARED


class VertexOptions(Options):
    """Options of a Vertex AI target."""

    project: str = Field("", description="Project id. Default: GOOGLE_CLOUD_PROJECT, or the credentials' own.")
    region: str = Field("", description="Region of everything that is made, such as 'europe-west4'. It has no default.")
    bucket: str = Field(
        "", description="Bucket in that region for the bundles. Default: '<project>-modelserve-<region>'."
    )
    repository: str = Field(
        "modelserve", description="Artifact Registry repository in that region for the image. Default: 'modelserve'."
    )
    image: str = Field(
        "",
        description="Image to run instead of our own runtime's; it must lie in Artifact Registry.",
    )
    credentials: Path | None = Field(
        None, description="File with a service account's key. Default: application default credentials."
    )

    endpoint: EndpointKind = Field(
        EndpointKind.DEDICATED,
        description=(
            "How it is reached: 'dedicated' (public, a name of its own), 'shared' (the region's host; 1.5 MB, 60 s), "
            "'psc' (Private Service Connect) or 'private' (peered network). Default: 'dedicated'."
        ),
    )
    network: str = Field("", description="For 'private': projects/<number>/global/networks/<name>.")
    psc_projects: tuple[str, ...] = Field((), description="For 'psc': projects that may connect.")
    inference_timeout_s: Annotated[float, Field(gt=0, le=_MOST_ANSWER_S)] = Field(
        600.0, description="Longest time for an answer of 'dedicated' and 'psc', at most 3600. Default: 600."
    )
    streamed_answers: bool = Field(
        False,
        description="Whether 'dedicated' and 'psc' are asked by streamRawPredict, whose answers come in pieces. "
        "Default: they are not.",
    )

    machine_type: str = Field("n1-standard-2", description="Machine of each replica. Default: 'n1-standard-2'.")
    accelerator_type: str = Field("", description="Accelerator of each replica, such as 'NVIDIA_L4'. Default: none.")
    accelerator_count: int = Field(
        0, ge=0, le=16, description="How many of them a replica has. Default: 1 if a type is given."
    )
    spot: bool = Field(
        False, description="Whether replicas run on spot capacity, which may vanish. Default: they do not."
    )
    workers: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="Worker processes within a replica. Default: one for each of its processors, at most 8."
    )
    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="Threads within one operation of a worker. Default: 1."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Further environment variables of the container; none may begin with AIP_."
    )
    container_timeout_s: Annotated[float, Field(gt=0, le=_MOST_DEPLOY_S)] = Field(
        1800.0, description="Longest time for a replica to become healthy, at most 7200. Default: 1800."
    )

    batch_machine_type: str = Field(
        "",
        description="Machine of each replica of a batch job, without accelerators of machine_type's. "
        "Default: as machine_type, with its accelerators.",
    )
    batch_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Replicas of a batch job; their number stays as it is until the job ends. Default: 1."
    )

    service_account: str = Field(
        "", description="Service account that the container runs as. Default: the service agent's own."
    )
    kms_key: str = Field("", description="Key that encrypts model and endpoint, in the same region. Default: Google's.")
    labels: dict[str, str] = Field(default_factory=dict, description="Further labels of everything that is made.")
    container_logging: bool = Field(
        True, description="Whether the container's lines go to Cloud Logging. Default: they do."
    )
    access_logging: bool = Field(
        False, description="Whether every request is noted in Cloud Logging. Default: it is not."
    )
    request_log_table: str = Field(
        "", description="BigQuery table for samples of requests and answers: bq://project.dataset.table."
    )
    request_log_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="Share of requests that goes there. Default: 0.1."
    )
    canary_percent: Annotated[int, Field(ge=0, le=99)] = Field(
        0,
        description="Percent of the traffic that an update gets at first. Default: 0, all at once when it is ready.",
    )
    canary_hold_s: Seconds = Field(
        300.0, description="How long an update keeps to that share before it gets all. Default: 300."
    )

    deploy_timeout_s: Seconds = Field(3600.0, description="Longest time to wait for a deploy. Default: 3600.")
    call_timeout_s: Seconds = Field(60.0, description="Longest time for one call of the API. Default: 60.")
    poll_s: Annotated[float, Field(gt=0, le=60)] = Field(
        2.0, description="Seconds between two looks at a long operation, at first; then longer. Default: 2."
    )
    connections: int = Field(64, ge=1, le=4096, description="Connections to the endpoint at once. Default: 64.")
    api_address: str = Field(
        "", description="Address of the API instead of the region's own, such as a private one or a stand-in's."
    )
    predict_address: str = Field(
        "",
        description="Address for predictions instead of the endpoint's name, such as that of a forwarding rule (psc).",
    )

    verify_certificate: bool = Field(
        True,
        description="Whether certificates of predictions are verified. One behind an IP address of 'psc' cannot be.",
    )

    @field_validator("region")
    @classmethod
    def _one_region(cls, region: str) -> str:
        if region in {"global", "us", "eu"}:
            raise ValueError(
                "must be one region such as 'europe-west4'; predictions have no global or multi-region host"
            )
        return region

    @field_validator("api_address", "predict_address")
    @classmethod
    def _address(cls, address: str) -> str:
        parts = urlsplit(address)
        if address and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError("must be an address such as 'https://10.0.0.5'")
        return address.rstrip("/")

    def model_post_init(self, _context: Any) -> None:
        if self.accelerator_type and not self.accelerator_count:
            object.__setattr__(self, "accelerator_count", 1)  # frozen once it is made, which it is not yet
