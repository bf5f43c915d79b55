"""One batch job, as the resource manager and the workspace's storage know it.

    modelserve/<endpoint>/<job>/lines/part-00003.jsonl              what was sent
                               /answers/part-00003.answers.jsonl    what the script wrote
                               /job.json                            which job of the workspace it is

By these names it is found again from another process, and after the end of the one that began it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from modelserve.backend import Job, JobState, JobStatus
from modelserve.errors import BackendError, ConfigError, DeadlineError, DeploymentNotFoundError, NotReadyError
from modelserve_azureml import batch_bodies, deploying
from modelserve_azureml.batch_script import FAILURE
from modelserve_azureml.names import batch_name, cluster_name
from modelserve_azureml.site import Site

_RECORD = "job.json"
_ENDED = {"Completed": JobState.COMPLETED, "Failed": JobState.FAILED, "Canceled": JobState.FAILED}
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """Where everything of a job is.

    Attributes:
        endpoint: The online endpoint's name.
        work: The name that the work was given.
    """

    site: Site
    endpoint: str
    work: str

    @property
    def name(self) -> str:
        return batch_name(self.site.workspace, self.endpoint, self.work)

    @property
    def prefix(self) -> str:
        return f"{folder(self.endpoint)}{self.work}"

    @property
    def path(self) -> str:
        """Of the batch endpoint."""
        return self.site.workspace.batch_endpoint(self.name)

    @property
    def deployment(self) -> str:
        return f"{self.path}/deployments/{batch_bodies.DEPLOYMENT}"

    @property
    def cluster(self) -> str:
        """The address of the cluster that is made for the job."""
        return self.site.workspace.compute(cluster_name(self.name))

    @property
    def environment(self) -> str:
        return f"{self.site.workspace.environment(self.name)}/versions/1"

    @property
    def code(self) -> str:
        return self.site.workspace.code(self.name)

    def sent(self, part: int) -> str:
        """The name of the blob with a part's lines."""
        return f"{self.prefix}/lines/part-{part:05}.jsonl"

    def record(self, job: str) -> None:
        """Note which job it is, so that other processes find it, too. Without a name there is no work."""
        self.site.store.put(f"{self.prefix}/{_RECORD}", json.dumps({"job": job}).encode())

    def recorded(self) -> str | None:
        """The job's own name; None where none was begun."""
        content = self.site.store.get(f"{self.prefix}/{_RECORD}")
        return None if content is None else str(json.loads(content)["job"])

    def is_there(self) -> bool:
        """Whether the job was begun, and is still known."""
        job = self.recorded()
        return job == "" or (job is not None and self.site.arm.find(self.site.workspace.job(job)) is not None)

    def remove(self) -> None:
        """Stop what is under way, and remove everything. Quiet when there is nothing."""
        job = self.recorded()
        if job:
            end(self.site, job)
        deploying.remove(self.site.arm, self.path)
        remove_cluster(self.site, self.cluster)
        self.site.assets.forget(self.environment)
        self.site.assets.forget(self.code)
        # Last: by these a job is found whose process was killed.
        self.site.store.remove(f"{self.prefix}/")


class AzureMLJob(Job):
    """A job of a batch endpoint."""

    def __init__(self, place: BatchPlace) -> None:
        self.name = place.name
        self._place = place
        self._answers: dict[str, str] = {}

    def status(self) -> JobStatus:
        job = self._place.recorded()
        if job == "":
            return JobStatus(JobState.COMPLETED, "nothing to do")
        content = None if job is None else self._place.site.arm.find(self._place.site.workspace.job(job))
        if content is None:
            raise DeploymentNotFoundError(f"There is no job {self.name!r} any more.")
        stage = content["properties"].get("status") or "Unknown"
        state = _ENDED.get(stage, JobState.RUNNING)
        return JobStatus(state, stage, self._why(content, stage) if state is JobState.FAILED else "")

    def lines(self, part: int) -> bytes:
        store, place = self._place.site.store, self._place
        wanted = f"part-{part:05}.answers.jsonl"
        if wanted not in self._answers:
            # Wherever below the output's address the service puts what the script writes.
            self._answers = {name.rpartition("/")[2]: name for name in store.names(f"{place.prefix}/answers")}
        content = store.get(self._answers[wanted]) if wanted in self._answers else None
        if content is not None:
            return content
        if store.get(place.sent(part)) is None:
            raise DeploymentNotFoundError(f"Job {self.name!r} has no part {part}.")
        raise BackendError(f"Job {self.name!r} gave no answers to part {part}. Delete it, and run again.")

    def delete(self) -> None:
        self._place.remove()

    def _why(self, content: Any, stage: str) -> str:
        """What the script wrote, and where the service's own logs are."""
        store, place = self._place.site.store, self._place
        told = [store.get(name) for name in store.names(f"{place.prefix}/answers") if name.endswith(f"/{FAILURE}")]
        lines = [text.decode(errors="replace").strip().splitlines()[-1] for text in told if text]
        studio = ((content["properties"].get("services") or {}).get("Studio") or {}).get("endpoint") or ""
        logs = [f"Its logs: {studio}"] if studio else []
        return " ".join([*(lines[:1] or [f"The job ended as {stage}."]), *logs])


def folder(endpoint: str) -> str:
    """Below it lies everything of an endpoint's jobs."""
    return f"modelserve/{endpoint}/"


def end(site: Site, job: str) -> None:
    """Cancel a job, wait until it has ended, and remove its record where the service does that."""
    path = site.workspace.job(job)
    deadline = time.monotonic() + deploying.UNDO_S
    content = site.arm.find(path)
    if content is None:
        return
    if content["properties"].get("status") not in _ENDED:
        _cancel(site, path, deadline)
    try:
        site.arm.operate("DELETE", path, deadline=deadline)
    except (BackendError, ConfigError, NotReadyError):
        # It stays in the workspace's list of jobs, and costs nothing there.
        return


def remove_cluster(site: Site, path: str) -> None:
    """Delete a cluster and its machines. Quiet when it is gone already."""
    if site.arm.find(path) is not None:
        target = f"{path}?underlyingResourceAction=Delete"
        site.arm.operate("DELETE", target, deadline=time.monotonic() + deploying.UNDO_S)


def _cancel(site: Site, path: str, deadline: float) -> None:
    site.arm.operate("POST", f"{path}/cancel", deadline=deadline)
    while True:
        content = site.arm.find(path)
        if content is None or content["properties"].get("status") in _ENDED:
            return
        if time.monotonic() > deadline:
            raise DeadlineError(f"Job {path.rpartition('/')[2]!r} was cancelled and goes on. Delete it again later.")
        time.sleep(_LOOK_S)
