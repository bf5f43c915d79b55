"""A data set answered by batch transform: machines of their own run the endpoint's model, and go when they are done.

    name ─► its newest attempt is there: that job
         └► it is not: looked at first ─ parts to S3 ─ CreateTransformJob ─► the next attempt's job

What is made is in the journal before, as in `release`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelserve.backend import Job, NothingToDo, WorkPart
from modelserve.backend.journal import Journal
from modelserve.backend.marks import Marks, content_name
from modelserve.backend.preflight import Check, look_all, require_passed
from modelserve.errors import ConfigError, DeploymentNotFoundError, InputError, ModelServeError
from modelserve_sagemaker import rules, traits
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.errors import is_present
from modelserve_sagemaker.inventory import Inventory
from modelserve_sagemaker.jobs import JobFolder, TransformJob, describe, source_of
from modelserve_sagemaker.limits import LONGEST_ROW_BYTES, architecture, has_accelerator, transforms_at_once
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.quota import require_quota
from modelserve_sagemaker.storage import bucket_of

LINES = "application/jsonlines"
#: Leaves room for "-", an attempt's number and the limit of 63.
_LONGEST_BASE = 58
_DEFAULT_PAYLOAD_MB = 6
_MB = 1_000_000
_LONGEST_REQUEST_S = 3600


@dataclass(frozen=True, slots=True)
class _Model:
    """What the endpoint runs now."""

    name: str
    digest: str


class Batch:
    """The jobs of one deployment."""

    def __init__(self, account: Account, options: SageMakerOptions, inventory: Inventory, deployment: str) -> None:
        self._account = account
        self._options = options
        self._inventory = inventory
        self._deployment = deployment
        self._key = f"{options.prefix.strip('/')}/{deployment}/jobs"

    def job(self, name: str, parts: Iterable[WorkPart]) -> Job:
        """As `Endpoint.batch`."""
        base = content_name(self._deployment, {"deployment": self._deployment, "work": name}, longest=_LONGEST_BASE)
        attempt = self._newest_attempt(base)
        found = self._found(f"{base}-{attempt}") if attempt else None
        return found or self._begun(f"{base}-{attempt + 1}", parts)

    def _newest_attempt(self, base: str) -> int:
        listed = self._account.pages("sagemaker", "list_transform_jobs", "TransformJobSummaries", NameContains=base)
        numbers = [re.fullmatch(rf"{re.escape(base)}-(\d+)", entry["TransformJobName"]) for entry in listed]
        return max((int(number[1]) for number in numbers if number), default=0)

    def _found(self, name: str) -> TransformJob | None:
        """The job of that name; None where only its record is left."""
        described = describe(self._account, name)
        if described is None or described["TransformJobStatus"] in {"Stopping", "Stopped"}:
            return None
        root = f"s3://{bucket_of(self._account, self._options)}/{self._key}/"
        source = source_of(described)
        if not source.startswith(root):
            return None
        folder = self._folder(source.removeprefix(root).partition("/")[0])
        return TransformJob(name, folder, self._account) if folder.counts()[0] else None

    def _begun(self, name: str, parts: Iterable[WorkPart]) -> Job:
        model, folder = self._model(), self._folder(secrets.token_hex(6))
        checks = self._checks(self._request(name, model, folder, _DEFAULT_PAYLOAD_MB))
        require_passed(look_all(checks), f"A batch job of {self._deployment!r}")
        with Journal("sagemaker", self._deployment) as journal:
            journal.will_create("files", folder.location, folder.remove)
            longest = 0
            for part in parts:
                longest = max(longest, _longest_row(part))
                folder.put(part, self._options)
            if not longest:
                return NothingToDo(name)
            # What it is told to take is a little larger than the longest row, as AWS advises.
            payload_mb = max(_DEFAULT_PAYLOAD_MB, 1 + longest // _MB)
            return self._created(self._request(name, model, folder, payload_mb), folder, journal)

    def _created(self, request: dict[str, Any], folder: JobFolder, journal: Journal) -> TransformJob:
        name = request["TransformJobName"]
        entry = journal.will_create("transform-job", name, lambda: self._undo(name, folder))
        try:
            self._account.call("sagemaker", "create_transform_job", **request)
        except ModelServeError as error:
            another = self._found(name) if error.__cause__ and is_present(error.__cause__) else None
            if another is None:
                raise
            # Another program began the same work a moment ago: it is there, and not ours to undo.
            journal.forget(entry)
            folder.remove()
            return another
        return TransformJob(name, folder, self._account, is_new=True)

    def _request(self, name: str, model: _Model, folder: JobFolder, payload_mb: int) -> dict[str, Any]:
        """What is sent: a row is a line, and a request to a container holds as many lines as fit."""
        options = self._options
        tags = {**options.tags, **Marks.of(self._deployment, model.digest).as_tags()}
        output = {"S3OutputPath": folder.answers, "Accept": LINES, "AssembleWith": "Line"}
        machines: dict[str, Any] = {"InstanceType": options.batch_machine, "InstanceCount": options.batch_instances}
        if options.kms_key:
            output["KmsKeyId"] = options.kms_key
            machines["VolumeKmsKeyId"] = options.kms_key
        return {
            "TransformJobName": name,
            "ModelName": model.name,
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": folder.parts}},
                "ContentType": LINES,
                "SplitType": "Line",
            },
            "TransformOutput": output,
            "TransformResources": machines,
            "BatchStrategy": "MultiRecord",
            "MaxPayloadInMB": payload_mb,
            "MaxConcurrentTransforms": transforms_at_once(payload_mb),
            "ModelClientConfig": {"InvocationsTimeoutInSeconds": _LONGEST_REQUEST_S, "InvocationsMaxRetries": 3},
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }

    def _undo(self, name: str, folder: JobFolder) -> None:
        described = describe(self._account, name)
        if described is not None and source_of(described) == folder.parts:
            TransformJob(name, folder, self._account).delete()

    def _model(self) -> _Model:
        described = self._inventory.describe_endpoint(self._deployment)
        marks = described and self._inventory.marks("endpoint-config", described["EndpointConfigName"])
        if not described or not marks:
            raise DeploymentNotFoundError(f"There is no deployment {self._deployment!r} any more.")
        config = self._account.call(
            "sagemaker", "describe_endpoint_config", EndpointConfigName=described["EndpointConfigName"]
        )
        return _Model(config["ProductionVariants"][0]["ModelName"], marks.digest)

    def _checks(self, request: dict[str, Any]) -> list[Check]:
        machine, count = self._options.batch_machine, self._options.batch_instances
        return [
            Check("batch machine", self._machine),
            Check("batch request", lambda: _taken(request)),
            Check("batch quota", lambda: require_quota(self._account, machine, "transform job", count)),
        ]

    def _machine(self) -> str:
        machine, image_for = self._options.batch_machine, architecture(self._options.instance_type)
        if self._options.image is None and has_accelerator(machine):
            raise ConfigError(
                f"batch_instance_type {machine!r} has an accelerator, which modelserve's image has no use for."
            )
        if not traits.is_known("TransformInstanceType", machine) and (
            architecture(machine) == "arm64" or traits.is_known("ProductionVariantInstanceType", machine)
        ):
            raise ConfigError(
                f"Batch transform has no machines of type {machine!r}. Set batch_instance_type, such as "
                "'ml.c7i.large', or ask the endpoint itself (engine='local')."
            )
        if architecture(machine) != image_for:
            raise ConfigError(
                f"The model's image is for {image_for}, and {machine!r} is not. Batch transform has machines of amd64 "
                "only: serve on one too, or ask the endpoint itself (engine='local')."
            )
        return f"{self._options.batch_instances} x {machine}."

    def _folder(self, name: str) -> JobFolder:
        return JobFolder(self._account, bucket_of(self._account, self._options), f"{self._key}/{name}")


def _taken(request: dict[str, Any]) -> str:
    operation = "CreateTransformJob"
    found = [*traits.problems("sagemaker", operation, request), *rules.problems(operation, request)]
    # Of machines the check before this one knows more.
    hard = [problem for problem in found if "InstanceType" not in problem]
    if hard:
        raise InputError(f"SageMaker would refuse the request: {'; '.join(hard)}.")
    return "Names, sizes and their combinations are within what AWS's service model takes."


def _longest_row(part: WorkPart) -> int:
    longest = max(map(len, part.lines.split(b"\n")))
    if longest > LONGEST_ROW_BYTES:
        raise InputError(
            f"A row of part {part.number} takes {longest} bytes as a line, and at most {LONGEST_ROW_BYTES} are taken. "
            "Ask the endpoint itself: engine='local'."
        )
    return longest
