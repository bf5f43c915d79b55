"""What modelserve made in this account, found by tag: endpoints, their configurations, batch jobs, models, files.

Removing is best effort in an order that AWS takes: scaling, endpoint, configuration, jobs, model, files. What belongs
to somebody else has no tag of ours and is never touched. A job that has ended is a record only, which nobody can
delete: it is no longer among what there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from modelserve.backend.marks import Marks
from modelserve.errors import BackendError, DeploymentNotFoundError, ModelServeError
from modelserve_sagemaker import logs, scaling
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.jobs import describe, end
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.storage import bucket_of, remove_below
from modelserve_sagemaker.waiting import wait_until

_OURS = re.compile(r".+-[0-9a-f]{12}(-\d+)?")
#: What the names of all that belongs to a deployment begin with, however long its own is.
_PREFIX = 45
_LONGEST_DELETE_S = 1800.0
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Found:
    """One resource of ours: `kind` is endpoint, endpoint-config, transform-job or model."""

    kind: str
    name: str
    marks: Marks


class Inventory:
    """What is there, and how it goes."""

    def __init__(self, account: Account, options: SageMakerOptions) -> None:
        self._account = account
        self._options = options

    def resources(self, deployment: str | None = None) -> list[Found]:
        """Everything of ours; of one deployment where it is named. Endpoints first, models last."""
        asked: dict[str, Any] = {"MaxResults": _PAGE}
        if deployment is not None:
            asked["NameContains"] = deployment[:_PREFIX].rstrip("-")
        found: list[Found] = []
        for kind, operation, key, field, more in _LISTED:
            for entry in self._account.pages("sagemaker", operation, key, **asked, **more):
                found += self._marked(kind, entry[field], deployment)
        return found

    def models_at_work(self, jobs: Iterable[Found]) -> set[str]:
        """The models that these jobs run."""
        described = [describe(self._account, one.name) for one in jobs if one.kind == "transform-job"]
        return {job["ModelName"] for job in described if job is not None}

    def marks(self, kind: str, name: str) -> Marks | None:
        """The marks of one resource; None where it is not ours, or gone meanwhile."""
        try:
            tags = self._account.pages("sagemaker", "list_tags", "Tags", ResourceArn=self._account.arn(kind, name))
        except DeploymentNotFoundError:
            return None
        return Marks.read({tag["Key"]: tag["Value"] for tag in tags})

    def describe_endpoint(self, name: str) -> dict[str, Any] | None:
        """The endpoint as AWS describes it; None where there is none."""
        try:
            answer: dict[str, Any] = self._account.call("sagemaker", "describe_endpoint", EndpointName=name)
        except DeploymentNotFoundError:
            return None
        return answer

    def remove_deployment(self, name: str) -> None:
        """Everything of ours under this name.

        Raises:
            BackendError: something could not be removed; the message names it.
        """
        found = self.resources(name)
        steps: list[tuple[str, Callable[[], None]]] = []
        if any(one.kind == "endpoint" for one in found):
            steps.append((f"scaling of {name}", lambda: scaling.forget(self._account, name)))
        steps += [(f"{one.kind} {one.name}", partial(self.remove, one.kind, one.name)) for one in found]
        steps.append(("files", lambda: self.remove_files(name)))
        _every_step(steps)

    def remove(self, kind: str, name: str) -> None:
        """One resource, until it is gone. Quiet when it is."""
        if kind == "endpoint":
            self._remove_endpoint(name)
            return
        if kind == "transform-job":
            end(self._account, name)
            logs.remove_job(self._account, name)
            return
        operation, parameter = _DELETES[kind]
        self._quietly(operation, **{parameter: name})

    def remove_files(self, deployment: str) -> None:
        """The models of a deployment in S3, and the files of its jobs."""
        prefix = f"{self._options.prefix.strip('/')}/{deployment}/"
        try:
            remove_below(self._account, bucket_of(self._account, self._options), prefix)
        except ModelServeError as error:
            if error.__cause__ is None or "NoSuchBucket" not in str(error):
                raise

    def _remove_endpoint(self, name: str) -> None:
        def is_gone() -> bool:
            described = self.describe_endpoint(name)
            if described is None:
                return True
            # While it is being created or updated, AWS refuses to delete it; once it stands, it goes.
            if described["EndpointStatus"] in {"InService", "Failed", "OutOfService", "UpdateRollbackFailed"}:
                self._quietly("delete_endpoint", EndpointName=name)
            return False

        self._quietly("delete_endpoint", EndpointName=name)
        wait_until(is_gone, _LONGEST_DELETE_S, f"Deleting endpoint {name!r}")

    def _quietly(self, operation: str, **parameters: Any) -> None:
        try:
            self._account.call("sagemaker", operation, **parameters)
        except DeploymentNotFoundError:
            return
        except ModelServeError as error:
            # Not deletable at this moment is seen by the look that follows.
            if operation != "delete_endpoint" or not error.retryable:
                raise

    def _marked(self, kind: str, name: str, deployment: str | None) -> Iterable[Found]:
        if kind != "endpoint" and not _OURS.fullmatch(name):
            return
        marks = self.marks(kind, name)
        if marks is not None and deployment in {None, marks.deployment}:
            yield Found(kind, name, marks)


def _every_step(steps: Iterable[tuple[str, Callable[[], None]]]) -> None:
    left: list[str] = []
    for what, remove in steps:
        try:
            remove()
        except ModelServeError as error:
            left.append(f"{what} ({error})")
    if left:
        raise BackendError(f"Not everything could be removed: {'; '.join(left)}. Put that right and delete again.")


_LISTED: tuple[tuple[str, str, str, str, dict[str, str]], ...] = (
    ("endpoint", "list_endpoints", "Endpoints", "EndpointName", {}),
    ("endpoint-config", "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", {}),
    (
        "transform-job",
        "list_transform_jobs",
        "TransformJobSummaries",
        "TransformJobName",
        {"StatusEquals": "InProgress"},
    ),
    ("model", "list_models", "Models", "ModelName", {}),
)
_DELETES = {
    "endpoint-config": ("delete_endpoint_config", "EndpointConfigName"),
    "model": ("delete_model", "ModelName"),
}
