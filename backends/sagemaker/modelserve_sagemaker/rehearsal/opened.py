"""The stand-in with an account that is set up as a user's would be: a bucket, a role, the runtime's image, a quota."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import boto3

from modelserve.backend import Rehearsal
from modelserve.errors import DeploymentNotFoundError
from modelserve_sagemaker.backend import SageMakerBackend
from modelserve_sagemaker.images import image_of
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.rehearsal.door import ACCESS_KEY, SECRET_KEY
from modelserve_sagemaker.rehearsal.records import ACCOUNT
from modelserve_sagemaker.rehearsal.standin import StandIn
from modelserve_sagemaker.storage import bucket_of

DEFAULT_REGION = "us-east-1"
DEFAULT_ROLE = f"arn:aws:iam::{ACCOUNT}:role/modelserve"
_ROLE = re.compile(r"(arn:aws[a-z-]*:iam::)\d{12}(:role/.+)")
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
_QUOTA = 20.0
_MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": "sha256:" + "0" * 64},
    "layers": [],
}
_ONLY_LIVE = (
    "Whether your credentials, role and network really allow each call (IAM, VPC, KMS are not enforced here).",
    "Whether the account's quota and the region's capacity have room for these machines.",
    "How many minutes AWS takes to find machines, to fetch the image, and to update.",
    "Whether target tracking reaches its target under your traffic.",
    "The price: endpoints bill for as long as they exist.",
)


class SageMakerRehearsal(Rehearsal):
    """A stand-in, and the backend that talks to it."""

    only_live: Sequence[str] = _ONLY_LIVE
    backend: SageMakerBackend

    def __init__(self, standin: StandIn, options: SageMakerOptions) -> None:
        self.standin = standin
        self.backend = SageMakerBackend(options.model_dump())
        self.backend._account.session = _session(standin.region)  # noqa: SLF001  # credentials are all that differs

    def leftovers(self) -> list[str]:
        records, autoscaling = self.standin.records, self.standin.autoscaling
        with records.lock:
            found = [
                *(f"model {name}" for name in records.models),
                *(f"endpoint-config {name}" for name in records.configs),
                *(f"endpoint {name}" for name in records.endpoints),
                *(f"transform-job {name}" for name, job in self.standin.transforms.jobs.items() if job.is_at_work),
                *(f"scalable target {resource}" for resource, _ in autoscaling.targets),
            ]
        s3 = self.standin.upstream.client("s3")
        for bucket in s3.list_buckets()["Buckets"]:
            objects = s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents", [])
            found += [f"s3://{bucket['Name']}/{entry['Key']}" for entry in objects]
        return sorted([*found, *(f"container {name}" for name in self.standin.lives.processes)])

    def kill_replica(self, name: str) -> None:
        record = self.standin.records.endpoints.get(name)
        if record is None or not record.fleets:
            raise DeploymentNotFoundError(f"No endpoint {name!r} runs here.")
        next(iter(record.fleets.values())).kill_one()

    def close(self) -> None:
        self.standin.close()


def open_rehearsal(options: SageMakerOptions, *, pace: float = 1.0) -> SageMakerRehearsal:
    """A stand-in with an account in which these options find what they name.

    Args:
        pace: Seconds of AWS for a second here, for what takes minutes there.
    """
    region = options.region or boto3.Session(profile_name=None).region_name or DEFAULT_REGION
    standin = StandIn(region, pace=pace)
    try:
        # An account number of the stand-in's own: the user's is nobody's business here.
        role = _ROLE.sub(_renumbered, options.role_arn)
        image = None if options.image is None else re.sub(r"^\d{12}", ACCOUNT, options.image)
        told = {"region": region, "endpoint_url": standin.url, "profile": None, "role_arn": role, "image": image}
        rehearsal = SageMakerRehearsal(standin, options.model_copy(update=told))
        set_up(rehearsal)
    except BaseException:
        standin.close()
        raise
    return rehearsal


def set_up(rehearsal: SageMakerRehearsal) -> None:
    """What the user has made beforehand: bucket, role, image, quota. What the options have wrong stays wrong."""
    standin, backend = rehearsal.standin, rehearsal.backend
    account, options = backend._account, backend._options  # noqa: SLF001  # the account is this one's to make
    where = {} if standin.region == DEFAULT_REGION else {
        "CreateBucketConfiguration": {"LocationConstraint": standin.region}
    }  # fmt: skip
    standin.upstream.client("s3").create_bucket(Bucket=bucket_of(account, options), **where)
    name = options.role_arn.rpartition("/")[2]
    if name:
        standin.upstream.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST))
    standin.quotas |= {options.instance_type: _QUOTA, options.batch_machine: _QUOTA}
    _push_image(standin, rehearsal)
    standin.faults.clear()


def _push_image(standin: StandIn, rehearsal: SageMakerRehearsal) -> None:
    """The runtime's image counts as pushed: what runs behind the stand-in is the runtime of this environment."""
    from modelserve.errors import ModelServeError

    try:
        image = image_of(rehearsal.backend._account, rehearsal.backend._options)  # noqa: SLF001  # as above
    except ModelServeError:
        return  # the pre-flight says what is wrong with it
    ecr = standin.upstream.client("ecr")
    ecr.create_repository(repositoryName=image.repository)
    ecr.put_image(repositoryName=image.repository, imageTag=image.tag or "latest", imageManifest=json.dumps(_MANIFEST))


def _session(region: str) -> boto3.Session:
    return boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=region)


def _renumbered(found: re.Match[str]) -> str:
    return f"{found[1]}{ACCOUNT}{found[2]}"
