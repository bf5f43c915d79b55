"""What the Azure Machine Learning backend can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from modelserve.backend import Options
from modelserve_azureml.limits import (
    LARGEST_CLUSTER,
    LARGEST_MIRROR_PERCENT,
    LONGEST_NAME,
    LONGEST_PART_S,
    LONGEST_REQUEST_S,
    LONGEST_TAG,
    LONGEST_TAG_NAME,
    MOST_TAGS,
    NAME,
    SHORTEST_NAME,
)

_OWN_TAGS = 4
Text = Annotated[str, Field(min_length=1)]


class AzureMLOptions(Options):
    """Options of a target that is a workspace."""

    subscription: Text = Field(description="The subscription's id.")
    resource_group: Text = Field(description="The resource group of the workspace.")
    workspace: Text = Field(description="The workspace's name.")
    tenant: str = Field("", description="The directory to sign in to. Default: the credential's own.")
    client_id: str = Field("", description="A service principal to sign in as. Default: whoever is signed in here.")
    client_secret: str = Field("", description="Its secret, as a reference: '${AZURE_CLIENT_SECRET}'.", repr=False)

    instance_type: Text = Field("Standard_F4s_v2", description="Size of an instance. Default: 'Standard_F4s_v2'.")
    workers: int | None = Field(
        None, ge=1, le=64, description="Worker processes in an instance. Default: one for each processor, at most 8."
    )
    endpoint_name: str = Field(
        "", description="The endpoint's name in the region. Default: made from the deployment's name and the workspace."
    )
    image: str = Field(
        "", description="The runtime's image, by digest or tag. Default: our own, pushed where it is missing."
    )
    registry: str = Field(
        "", description="Registry for that image, such as 'team.azurecr.io'. Default: the workspace's own."
    )
    base_image: str = Field(
        "", description="What that image is put on: one with a Python. Default: Python's own, at Docker Hub."
    )
    auth: Literal["key", "aml_token", "aad_token"] = Field(
        "key", description="What callers show: key, aml_token or aad_token (Entra ID). Default: key."
    )
    identity: str = Field(
        "", description="Resource id of a managed identity for the endpoint. Default: one of the endpoint's own."
    )
    public_network: bool = Field(
        True, description="Whether the endpoint answers from the internet; if not, by private endpoint. Default: true."
    )

    request_timeout_s: int = Field(
        90, ge=1, le=LONGEST_REQUEST_S, description="Longest time for an answer, in whole seconds. Default: 90."
    )
    max_concurrent_requests: int = Field(
        64, ge=1, le=10_000, description="Requests that an instance works on at once. Default: 64."
    )
    max_body_mib: int = Field(
        16, ge=1, description="Largest request in MiB (ours: Azure publishes none); larger ones are split. Default: 16."
    )
    start_s: int = Field(
        600, ge=30, description="Time for a container to be ready, the model loaded included, in seconds. Default: 600."
    )
    timeout_s: float = Field(3600.0, gt=0, description="Longest time for a deploy or an update. Default: 3600.")

    canary_percent: int = Field(
        0, ge=0, le=99, description="Share of requests that a new version gets before it gets all. Default: 0."
    )
    mirror_percent: int = Field(
        0,
        ge=0,
        le=LARGEST_MIRROR_PERCENT,
        description="Share of requests that a new version is sent copies of before it answers any. Default: 0.",
    )
    bake_s: float = Field(
        0.0, ge=0, le=86400, description="Seconds for which each of these goes on before it is judged. Default: 0."
    )

    batch_cluster: str = Field(
        "", description="Cluster for batch jobs. Default: one made for each job, that bills while it works."
    )
    batch_instance_type: str = Field(
        "", description="Size of the instances of a cluster that is made. Default: instance_type."
    )
    batch_instances: int = Field(
        1, ge=1, le=LARGEST_CLUSTER, description="Instances that a batch job works on at once. Default: 1."
    )
    batch_part_s: int = Field(
        3600, ge=1, le=LONGEST_PART_S, description="Longest time for a part of a batch job, in seconds. Default: 3600."
    )
    batch_environment: str = Field(
        "", description="Address of an environment for batch jobs. Default: one on Microsoft's image."
    )
    datastore: str = Field(
        "workspaceblobstore", description="Blob datastore of batch jobs. Default: 'workspaceblobstore'."
    )

    environment_variables: dict[str, str] = Field(
        default_factory=dict, description="Further variables of the container."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Tags on everything that is made.")
    app_insights: bool = Field(False, description="Whether Application Insights gets the logs. Default: false.")
    ca: Path | None = Field(None, description="Authority that certified Azure's names, PEM. Default: the known ones.")
    proxy: str = Field("", description="Proxy towards Azure. Default: as HTTPS_PROXY says.", repr=False)

    @field_validator("endpoint_name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if value and not (SHORTEST_NAME <= len(value) <= LONGEST_NAME and NAME.fullmatch(value)):
            raise ValueError(
                f"an endpoint's name has {SHORTEST_NAME} to {LONGEST_NAME} letters, digits and single '-', "
                "starts with a letter and does not end with '-'"
            )
        return value

    @field_validator("tags")
    @classmethod
    def _are_tags(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > MOST_TAGS - _OWN_TAGS:
            raise ValueError(f"at most {MOST_TAGS - _OWN_TAGS} tags are taken")
        for name, text in value.items():
            if not name or len(name) > LONGEST_TAG_NAME or len(text) > LONGEST_TAG or set(name) & set("<>%&\\?/"):
                raise ValueError(f"the tag {name[:40]!r} is too long, or has one of <>%&\\?/ in its name")
        return value

    @field_validator("image", "base_image")
    @classmethod
    def _is_complete(cls, value: str) -> str:
        if value and "/" not in value:
            raise ValueError("an image's name begins with its registry, such as 'team.azurecr.io/name@sha256:...'")
        return value
