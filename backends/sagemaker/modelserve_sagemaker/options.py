"""What the SageMaker backend can be told."""

from __future__ import annotations

from enum import Enum
from typing import Literal, Self

from pydantic import Field, model_validator

from modelserve.backend import Options


class Mode(Enum):
    """How an endpoint is asked."""

    REAL_TIME = "real-time"
    SERVERLESS = "serverless"
    ASYNCHRONOUS = "asynchronous"


class SageMakerOptions(Options):
    """Options of a target in Amazon SageMaker."""

    region: str | None = Field(None, description="AWS region, such as 'eu-west-1'. Default: the AWS configuration's.")
    profile: str | None = Field(None, description="Profile of the AWS configuration. Default: the usual search.")
    role_arn: str = Field(
        "", description="Execution role that SageMaker takes on; 'modelserve policy' prints its rights."
    )
    mode: Mode = Field(Mode.REAL_TIME, description="'real-time', 'serverless' or 'asynchronous'. Default: 'real-time'.")
    bucket: str | None = Field(
        None, description="S3 bucket for models, in the endpoint's region. Default: modelserve-<account>-<region>."
    )
    prefix: str = Field("modelserve", description="Prefix of the keys in that bucket. Default: 'modelserve'.")
    image: str | None = Field(
        None,
        description="Runtime image in Amazon ECR. Default: the one of this account that holds this very modelserve.",
    )
    push_image: bool = Field(
        False, description="Whether a deploy builds the runtime's image and pushes it where it is not there."
    )
    instance_type: str = Field("ml.c7i.large", description="Machine of each replica. Default: 'ml.c7i.large'.")
    workers: int | None = Field(
        None, ge=1, le=64, description="Worker processes in each replica. Default: one for each processor, at most 8."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Further environment variables of the containers."
    )
    startup_timeout_s: int = Field(
        300, ge=60, le=3600, description="Longest time until a container must be healthy. Default: 300."
    )
    download_timeout_s: int = Field(
        600, ge=60, le=3600, description="Longest time to fetch the model onto a machine. Default: 600."
    )
    volume_gb: int | None = Field(None, ge=1, le=512, description="Disk of each machine. Default: SageMaker's choice.")

    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = Field(
        2048, description="Serverless: memory in steps of 1024, up to 6144. Default: 2048."
    )
    max_concurrency: int = Field(20, ge=1, le=200, description="Serverless: requests at once. Default: 20.")
    provisioned_concurrency: int | None = Field(
        None, ge=1, le=200, description="Serverless: capacity that is kept warm, and billed."
    )

    output: str | None = Field(
        None, description="Asynchronous: where answers are put. Default: below the models, s3://<bucket>/<prefix>/."
    )
    success_topic: str | None = Field(None, description="Asynchronous: SNS topic that is told of each answer.")
    error_topic: str | None = Field(None, description="Asynchronous: SNS topic that is told of each failure.")
    concurrent_per_instance: int | None = Field(
        None, ge=1, le=1000, description="Asynchronous: requests at once in each replica. Default: SageMaker's choice."
    )

    batch_instance_type: str | None = Field(
        None, description="Batch: machine of a job, of the same processors. Default: as instance_type."
    )
    batch_instances: int = Field(1, ge=1, le=100, description="Batch: machines of a job. Default: 1.")

    canary_percent: int | None = Field(
        None, ge=1, le=50, description="Update: share of the capacity that tries a new model first, 1 to 50."
    )
    canary_wait_s: int = Field(300, ge=0, le=3600, description="Update: how long it is tried. Default: 300.")
    alarms: list[str] = Field(
        default_factory=list, max_length=10, description="Update: CloudWatch alarms that roll it back, at most 10."
    )

    kms_key: str | None = Field(None, description="KMS key for models, answers and the machines' disks.")
    subnets: list[str] = Field(default_factory=list, max_length=16, description="VPC subnets, in two zones or more.")
    security_groups: list[str] = Field(default_factory=list, max_length=5, description="VPC security groups.")
    network_isolation: bool = Field(False, description="Whether containers have no network. Default: they have one.")
    capture_percent: int | None = Field(
        None, ge=1, le=100, description="Share of requests and answers that is kept in the bucket."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of everything that is made.")
    endpoint_url: str | None = Field(
        None, description="Address of a stand-in for AWS. Default: AWS itself, or AWS_ENDPOINT_URL."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups go together; give both or neither")
        return self

    @property
    def batch_machine(self) -> str:
        return self.batch_instance_type or self.instance_type

    @property
    def is_serverless(self) -> bool:
        return self.mode is Mode.SERVERLESS

    @property
    def is_asynchronous(self) -> bool:
        return self.mode is Mode.ASYNCHRONOUS
