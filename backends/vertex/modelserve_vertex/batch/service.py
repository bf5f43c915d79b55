"""Batch prediction jobs as Vertex AI keeps them: created under an id of its own, found by their labels, ended."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import aiplatform_v1 as v1

from modelserve.errors import BackendError, DeadlineError
from modelserve_vertex import names
from modelserve_vertex.errors import asking, status_of
from modelserve_vertex.google import Google
from modelserve_vertex.resources import Resources

_END_S = 1200.0

STATE = v1.JobState
ENDED = frozenset(
    {
        STATE.JOB_STATE_SUCCEEDED,
        STATE.JOB_STATE_PARTIALLY_SUCCEEDED,
        STATE.JOB_STATE_FAILED,
        STATE.JOB_STATE_CANCELLED,
        STATE.JOB_STATE_EXPIRED,
    }
)


class BatchPredictions:
    """The jobs of one project and region."""

    def __init__(self, google: Google, resources: Resources, poll_s: float) -> None:
        self.google = google
        self.resources = resources
        self._poll_s = poll_s

    def create(self, request: v1.CreateBatchPredictionJobRequest) -> Any:
        """Begin one; it goes on by itself."""
        with asking(f"Creating the batch job {request.batch_prediction_job.display_name!r}"):
            return self.google.jobs.create_batch_prediction_job(request=request, **self.google.writing)

    def get(self, resource: str) -> Any | None:
        """The job as it is now; None where there is none."""
        with asking(f"Reading the batch job {names.short(resource)}"), contextlib.suppress(google_errors.NotFound):
            return self.google.jobs.get_batch_prediction_job(request={"name": resource}, **self.google.reading)
        return None

    def matching(self, labels: str = names.MADE_HERE) -> list[Any]:
        """The jobs that a filter means, oldest first."""
        with asking("Listing batch jobs"):
            request = v1.ListBatchPredictionJobsRequest(parent=self.google.parent, filter=labels)
            found = list(self.google.jobs.list_batch_prediction_jobs(request=request, **self.google.reading))
        return sorted(found, key=lambda job: (job.create_time, job.name))

    def end(self, resource: str) -> None:
        """Stop a job where it is under way, and remove its record. Quiet when it is gone."""
        deadline, asked = time.monotonic() + _END_S, set[str]()
        while (found := self.get(resource)) is not None:
            verb = "delete" if found.state in ENDED else "cancel"
            if verb not in asked and self._begun(verb, resource):
                asked.add(verb)
                continue
            if time.monotonic() > deadline:
                raise DeadlineError(f"The batch job {names.short(resource)} does not end. Delete it again later.")
            time.sleep(self._poll_s)

    def _begun(self, verb: str, resource: str) -> bool:
        """Ask to cancel or to delete; False where that made no sense any more, or not yet."""
        call = getattr(self.google.jobs, f"{verb}_batch_prediction_job")
        try:
            with asking(f"Asking to {verb} the batch job {names.short(resource)}"):
                call(request={"name": resource}, **self.google.writing)
        except BackendError as error:
            if status_of(error.__cause__ or error) not in {"FAILED_PRECONDITION", "NOT_FOUND"}:
                raise
            return False
        return True
