"""A batch transform job: its states as ours, its files in S3, and how it goes.

    s3://<bucket>/<prefix>/<deployment>/jobs/<id>/parts/<number>.jsonl          what it reads
                                                 /answers/<number>.jsonl.out    what it writes

AWS keeps the record of a job for ever and never gives its name to another, so a job counts as being there while its
files are. Deleting one stops it and removes them; the same work asked for anew becomes the name's next attempt.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from modelserve.backend import Job, JobState, JobStatus, WorkPart
from modelserve.errors import DeploymentNotFoundError, InputError
from modelserve_sagemaker import logs
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.storage import encryption, keys_below, remove_below
from modelserve_sagemaker.waiting import wait_until

ENDED = {"Completed", "Failed", "Stopped"}
_LONGEST_STOP_S = 1800.0
#: AWS reads what was just written from elsewhere: for this long, what is missing may be on its way.
_SEEN_AFTER_S = 30.0
_PARTS, _ANSWERS = "parts", "answers"


class JobFolder:
    """The files of one job, below `key` in `bucket`."""

    def __init__(self, account: Account, bucket: str, key: str) -> None:
        self._account = account
        self._bucket = bucket
        self._key = key

    @property
    def location(self) -> str:
        return f"s3://{self._bucket}/{self._key}"

    @property
    def parts(self) -> str:
        """What the job is told to read."""
        return f"{self.location}/{_PARTS}/"

    @property
    def answers(self) -> str:
        """Where it is told to write."""
        return f"{self.location}/{_ANSWERS}/"

    def put(self, part: WorkPart, options: SageMakerOptions) -> None:
        self._account.call(
            "s3",
            "put_object",
            Bucket=self._bucket,
            Key=f"{self._key}/{_PARTS}/{_file(part.number)}",
            Body=part.lines,
            **encryption(options),
        )

    def counts(self) -> tuple[int, int]:
        """How many parts there are, and how many of them are answered."""
        keys = keys_below(self._account, self._bucket, f"{self._key}/")
        parts = sum(key.startswith(f"{self._key}/{_PARTS}/") for key in keys)
        return parts, sum(key.startswith(f"{self._key}/{_ANSWERS}/") for key in keys)

    def lines(self, part: int) -> bytes:
        """A part's answers.

        Raises:
            DeploymentNotFoundError: it has none.
        """
        key = f"{self._key}/{_ANSWERS}/{_file(part)}.out"
        answer = self._account.call("s3", "get_object", Bucket=self._bucket, Key=key)
        # SageMaker sets a line break between the answers to its requests, where ours end with one already.
        return b"\n".join([*filter(None, answer["Body"].read().split(b"\n")), b""])

    def remove(self) -> None:
        remove_below(self._account, self._bucket, f"{self._key}/")


class TransformJob(Job):
    """One job of ours.

    Args:
        is_new: It was made a moment ago, and AWS may not see it yet.
    """

    def __init__(self, name: str, folder: JobFolder, account: Account, *, is_new: bool = False) -> None:
        self.name = name
        self._folder = folder
        self._account = account
        self._seen_by = time.monotonic() + (_SEEN_AFTER_S if is_new else 0)

    def status(self) -> JobStatus:
        described, (parts, answered) = describe(self._account, self.name), self._folder.counts()
        if described is None and parts and time.monotonic() < self._seen_by:
            return JobStatus(JobState.RUNNING, "Created")
        if described is None or not parts:
            raise DeploymentNotFoundError(f"Job {self.name!r} is gone; something else deleted it.")
        state = described["TransformJobStatus"]
        if state == "Completed":
            return JobStatus(JobState.COMPLETED, state)
        if state in ENDED:
            return JobStatus(JobState.FAILED, state, self._why(described))
        waits = "TransformStartTime" not in described
        return JobStatus(
            JobState.RUNNING, f"{state}, {'waiting for machines' if waits else f'{answered} of {parts} parts answered'}"
        )

    def lines(self, part: int) -> bytes:
        return self._folder.lines(part)

    def delete(self) -> None:
        end(self._account, self.name)
        self._folder.remove()
        logs.remove_job(self._account, self.name)

    def _why(self, described: dict[str, Any]) -> str:
        if described["TransformJobStatus"] == "Stopped":
            return "Something else stopped it."
        reason = described.get("FailureReason", "SageMaker says no reason.")
        return f"{reason} {logs.tail_of_job(self._account, self.name)}"


def describe(account: Account, name: str) -> dict[str, Any] | None:
    """A job as AWS describes it; None where there never was one."""
    try:
        answer: dict[str, Any] = account.call("sagemaker", "describe_transform_job", TransformJobName=name)
    except DeploymentNotFoundError:
        return None
    return answer


def source_of(described: dict[str, Any]) -> str:
    """What a job reads."""
    return str(described["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])


def end(account: Account, name: str) -> None:
    """Stop a job, and wait until it has ended. Quiet when it has, or never was."""

    def has_ended() -> bool:
        described = describe(account, name)
        return described is None or described["TransformJobStatus"] in ENDED

    if has_ended():
        return
    # AWS refuses to stop what ended in between, or is stopping already.
    with contextlib.suppress(InputError, DeploymentNotFoundError):
        account.call("sagemaker", "stop_transform_job", TransformJobName=name)
    wait_until(has_ended, _LONGEST_STOP_S, f"Stopping job {name!r}")


def _file(part: int) -> str:
    return f"{part:08}.jsonl"
