"""One batch prediction job, in the core's words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import Any

from modelserve.backend import Job, JobState, JobStatus
from modelserve.errors import DeploymentNotFoundError, NotReadyError
from modelserve_vertex.batch.answers import Answers
from modelserve_vertex.batch.files import JobFiles
from modelserve_vertex.batch.service import ENDED, STATE, BatchPredictions

_REASONS = 3
_COMPLETED = {STATE.JOB_STATE_SUCCEEDED, STATE.JOB_STATE_PARTIALLY_SUCCEEDED}


class VertexJob(Job):
    """A job under its resource name; its files are those of its name."""

    def __init__(self, service: BatchPredictions, files: JobFiles, resource: str, name: str) -> None:
        self.name = name
        self._service = service
        self._files = files
        self._resource = resource

    def status(self) -> JobStatus:
        found = self._found()
        if found.state in _COMPLETED:
            return JobStatus(JobState.COMPLETED)
        if found.state in ENDED:
            return JobStatus(JobState.FAILED, message=found.error.message or _words(found.state))
        stage, done = _words(found.state), found.completion_stats.successful_count
        return JobStatus(JobState.RUNNING, f"{stage}, {done} rows answered" if done else stage)

    def lines(self, part: int) -> bytes:
        answered, asked = self._answers.rows[part], self._asked.get(part)
        if asked is None:
            raise DeploymentNotFoundError(f"Job {self.name!r} has no part {part}.")
        if answered != asked:
            raise DeploymentNotFoundError(
                f"Job {self.name!r} answered {answered} of the {asked} rows of part {part}: {self._reasons()} "
                "Ask for it again."
            )
        return self._answers.lines(part)

    def delete(self) -> None:
        self._service.end(self._resource)
        self._files.remove()

    @cached_property
    def _asked(self) -> Mapping[int, int]:
        return self._files.parts()

    @cached_property
    def _answers(self) -> Answers:
        return Answers(self._files, self._directory())

    def _directory(self) -> str:
        found = self._found()
        if found.state not in _COMPLETED:
            raise NotReadyError(f"Job {self.name!r} is {_words(found.state)!r}: it has no answers yet.")
        return str(found.output_info.gcs_output_directory)

    def _reasons(self) -> str:
        told = list(islice(self._files.errors(self._directory()), _REASONS))
        return " ".join(told) or "the service says no reason."

    def _found(self) -> Any:
        found = self._service.get(self._resource)
        if found is None:
            raise DeploymentNotFoundError(f"There is no batch job {self.name!r} any more.")
        return found


def _words(state: Any) -> str:
    return str(state.name.removeprefix("JOB_STATE_").replace("_", " ").capitalize())
