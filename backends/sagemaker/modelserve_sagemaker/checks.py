"""What is looked at before anything is billed.

    credentials ─ name ─ role ─ bucket ─ image ─ request ─ instance type ─ scale ─ quota ─ payload ─ memory

All of them are looked at, also after one was refused; what only AWS can answer says so.
"""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

from modelserve.backend import DeploymentSpec, Servable
from modelserve.backend.preflight import Check, OnlyLive, Skipped
from modelserve.bundle import Bundle
from modelserve.errors import (
    AccessDeniedError,
    ConfigError,
    DeploymentNotFoundError,
    InputError,
    ModelServeError,
    NotSupportedError,
)
from modelserve.wire import encode_request
from modelserve_sagemaker import images, rules, scaling, traits
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.limits import REQUEST_BYTES, SERVERLESS_STARTUP_S, memory_mib, needed_mib
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.plan import Plan, first_replicas
from modelserve_sagemaker.quota import require_quota
from modelserve_sagemaker.storage import bucket_of

_ROLE = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>\d{12}):role/(?:[\w+=,.@/-]*/)?(?P<name>[\w+=,.@-]+)"
)
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_DEFAULT_WORKERS = 2


class Checks:
    """The checks of one deploy."""

    def __init__(self, account: Account, options: SageMakerOptions, servable: Servable, spec: DeploymentSpec) -> None:
        self._account = account
        self._options = options
        self._servable = servable
        self._spec = spec

    def all(self) -> list[Check]:
        return [
            Check("credentials", self._credentials),
            Check("name", self._name),
            Check("role", self._role),
            Check("bucket", self._bucket),
            Check("image", self._image),
            Check("request", self._request),
            Check("instance type", self._instance_type),
            Check("scale", self._scale),
            Check("quota", self._quota),
            Check("payload", self._payload),
            Check("memory", self._memory),
        ]

    def _credentials(self) -> str:
        return f"{self._account.identity['Arn']} in {self._account.region}."

    def _name(self) -> str:
        if not _NAME.fullmatch(self._spec.name):
            raise InputError(
                f"SageMaker takes names of letters and digits with '-' between them, got {self._spec.name!r}."
            )
        return f"{self._spec.name!r} is one that SageMaker takes."

    def _role(self) -> str:
        given = self._options.role_arn
        found = _ROLE.fullmatch(given)
        if found is None:
            raise ConfigError(
                f"role_arn is {given!r}; it must be the ARN of an execution role, such as "
                f"'arn:aws:iam::123456789012:role/modelserve'. 'modelserve policy' prints the rights that it needs."
            )
        if found["account"] != self._account.number:
            raise ConfigError(f"role_arn {given!r} is of another account than yours, {self._account.number}.")
        try:
            role = self._account.call("iam", "get_role", RoleName=found["name"])["Role"]
        except AccessDeniedError as error:
            raise OnlyLive(f"You may not look at {given}: {error}") from error
        except DeploymentNotFoundError as error:
            raise ConfigError(
                f"There is no role {given!r}. Make it with the rights that 'modelserve policy' prints."
            ) from error
        if "sagemaker.amazonaws.com" not in _text(role["AssumeRolePolicyDocument"]):
            raise ConfigError(f"{given!r} does not trust sagemaker.amazonaws.com. Add it to the role's trust policy.")
        return f"{given} trusts SageMaker."

    def _bucket(self) -> str:
        bucket = bucket_of(self._account, self._options)
        try:
            location = self._account.call("s3", "get_bucket_location", Bucket=bucket).get("LocationConstraint")
        except (ConfigError, DeploymentNotFoundError) as error:
            raise ConfigError(
                f"There is no bucket {bucket!r}. Make it with: aws s3 mb s3://{bucket} --region {self._account.region}"
            ) from error
        region = location or "us-east-1"
        if region != self._account.region:
            raise ConfigError(
                f"Bucket {bucket!r} lies in {region!r}, the endpoint in {self._account.region!r}. Use one there."
            )
        return f"s3://{bucket} in {region}."

    def _image(self) -> str:
        found = images.find(self._account, self._options)
        if found is not None:
            return found
        if not self._options.push_image or self._options.image is not None:
            raise images.missing(self._account, self._options)
        return f"{images.image_of(self._account, self._options).reference} is not there, and is built and pushed."

    def _request(self) -> str:
        found = self._problems()
        hard = [problem for problem in found if not _may_be_new(problem)]
        if hard:
            raise InputError(f"SageMaker would refuse the request: {'; '.join(hard)}.")
        return "Names, sizes and their combinations are within what AWS's service model takes."

    def _instance_type(self) -> str:
        if self._options.is_serverless:
            raise Skipped("A serverless endpoint has no machines of its own.")
        if any(_may_be_new(problem) for problem in self._problems()):
            raise OnlyLive(f"This botocore does not know {self._options.instance_type!r}; AWS may.")
        return f"{self._options.instance_type} is one that SageMaker has."

    def _scale(self) -> str:
        scale = self._spec.scale
        if scale is None:
            return "One replica, as nothing else was asked for."
        scaling.check(scale, self._options)
        if self._options.canary_percent is not None and scale.minimum < 2:
            raise ConfigError(
                "A canary needs two replicas or more. Give scale a minimum of 2, or leave canary_percent out."
            )
        return f"{scale.minimum} to {scale.maximum} replicas."

    def _quota(self) -> str:
        if self._options.is_serverless:
            raise OnlyLive("How many requests at once the account may have is known to AWS only.")
        wanted = first_replicas(self._spec.scale)
        return require_quota(self._account, self._options.instance_type, "endpoint", wanted)

    def _payload(self) -> str:
        bundle, limit = self._servable, REQUEST_BYTES[self._options.mode]
        assert isinstance(bundle, Bundle)
        size = encode_request(bundle.example()).size_bytes
        if size > limit:
            raise InputError(
                f"The example takes {size} bytes, and mode {self._options.mode.value!r} at most {limit}. "
                "Use mode = 'asynchronous', or smaller requests."
            )
        return f"The example takes {size:,} of {limit:,} bytes."

    def _memory(self) -> str:
        bundle, has = self._servable, memory_mib(self._options)
        assert isinstance(bundle, Bundle)
        if has is None:
            raise OnlyLive(f"The memory of {self._options.instance_type!r} is not known here.")
        needs = needed_mib(bundle.size_bytes, self._options.workers or _DEFAULT_WORKERS)
        if needs > has:
            raise ConfigError(
                f"The model needs some {needs} MiB, and each replica has {has}. Choose a larger "
                f"{'memory_mb' if self._options.is_serverless else 'instance_type'}, or quantise the model."
            )
        if self._options.is_serverless:
            return f"Some {needs} of {has} MiB; the model must be loaded within {SERVERLESS_STARTUP_S} s."
        return f"Some {needs} of {has} MiB."

    def _problems(self) -> list[str]:
        plan = Plan(
            self._options, self._spec.name, self._servable.digest, self._shown_image(),
            f"s3://{bucket_of(self._account, self._options)}/{self._options.prefix}", first_replicas(self._spec.scale),
        )  # fmt: skip
        requests = {
            "CreateModel": plan.create_model(),
            "CreateEndpointConfig": plan.create_endpoint_config(),
            "CreateEndpoint": plan.create_endpoint(),
            "UpdateEndpoint": plan.update_endpoint(),
        }
        return [
            problem
            for operation, request in requests.items()
            for problem in (*traits.problems("sagemaker", operation, request), *rules.problems(operation, request))
        ]

    def _shown_image(self) -> str:
        try:
            return images.image_of(self._account, self._options).reference
        except ModelServeError:
            return "image"  # its own check says what is wrong with it


def require_bundle(servable: Servable) -> Bundle:
    """Refuse what has no portable form."""
    if not isinstance(servable, Bundle):
        raise NotSupportedError(f"SageMaker runs portable models only: {servable.reason} Serve it on a local target.")
    return servable


def _may_be_new(problem: str) -> bool:
    """Whether a newer botocore could know it: a machine that AWS has added since."""
    return "InstanceType" in problem and "values known" in problem


def _text(document: object) -> str:
    return unquote(document) if isinstance(document, str) else json.dumps(document)
