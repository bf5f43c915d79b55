"""The jobs of one deployment: begun, found again by another process, ended with it.

    parts ──one object each──► storage ──► CreateBatchPredictionJob on the endpoint's registered model ──► VertexJob

The service gives a job its id, so its labels say which deployment and which work it is for.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from functools import partial
from typing import Any

from modelserve.backend import Job, NothingToDo, WorkPart
from modelserve.backend.journal import Journal
from modelserve.backend.preflight import Check, look_all, require_passed
from modelserve.errors import NotReadyError
from modelserve_vertex import limits, names, requests, state
from modelserve_vertex.batch.files import JobFiles, remove_all
from modelserve_vertex.batch.job import VertexJob
from modelserve_vertex.batch.service import BatchPredictions
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.validation import require_kept


class Batches:
    """What is done in batches for one deployment."""

    def __init__(self, service: BatchPredictions, options: VertexOptions, *, bucket: str, deployment: str) -> None:
        self._service = service
        self._google = service.google
        self._options = options
        self._bucket = bucket
        self._deployment = deployment

    def start(self, name: str, endpoint: Any, parts: Iterable[WorkPart]) -> Job:
        """Have the model behind an endpoint answer these parts; a job of that name that is there is the answer.

        Raises:
            PreflightError: Vertex AI would refuse the request.
        """
        standing = self._service.matching(names.made_for_job(self._deployment, name))
        if standing:
            return self._job(name, standing[0].name)
        model = state.registered(self._service.resources, endpoint)
        if model is None:
            raise NotReadyError(f"The model of {self._deployment!r} is no longer registered. Serve it again.")
        self._look_before(name, model)
        files = self._files(name)
        with Journal("vertex", self._deployment) as journal:
            journal.will_create("batch files", files.uri, files.remove)
            files.remove()  # of an upload that was broken off, whose parts nobody asks for now
            longest = _uploaded(files, parts)
            if not longest:
                return NothingToDo(self._display_name(name))
            request = self._request(name, model, longest)
            attempt = names.attempt(request.batch_prediction_job)
            journal.will_create("batch job", request.batch_prediction_job.display_name, partial(self._end, attempt))
            return self._job(name, self._first(name, self._service.create(request)))

    def end_all(self) -> None:
        """End every job of the deployment, and remove what was made for it. Quiet where there is none."""
        self._end(names.made_for(self._deployment))
        remove_all(self._google, self._bucket, self._deployment)

    def end_others(self, model: str) -> None:
        """End the jobs of every other model than the one of this resource name."""
        self._end(names.made_for(self._deployment), kept=model)

    def _end(self, labels: str, kept: str = "") -> None:
        for job in self._service.matching(labels):
            if job.model.partition("@")[0] != kept:
                self._service.end(job.name)
                self._files(names.job(job)).remove()

    def _first(self, name: str, made: Any) -> str:
        """The job that stays, of several that programs began for the same work at once: the oldest."""
        found = self._service.matching(names.made_for_job(self._deployment, name))
        if not found or found[0].name == made.name:
            return str(made.name)
        self._service.end(made.name)
        return str(found[0].name)

    def _look_before(self, name: str, model: Any) -> None:
        def look() -> str:
            require_kept(self._request(name, model, 1))
            return "The request keeps the rules."

        require_passed(look_all([Check("requests", look)]), f"Predicting in batches with {self._deployment!r}")

    def _request(self, name: str, model: Any, longest: int) -> Any:
        """The request; `longest` is the bytes of the longest row."""
        files = self._files(name)
        return requests.batch_job(
            self._google.parent,
            self._options,
            model=model,
            display_name=self._display_name(name),
            labels=dict(model.labels) | names.job_labels(name, uuid.uuid4().hex),
            input_uri=files.input_uri,
            output_uri=files.output_uri,
            batch_rows=max(1, min(limits.BATCH_ROWS, limits.BATCH_REQUEST_BYTES // longest)),
        )

    def _job(self, name: str, resource: str) -> VertexJob:
        return VertexJob(self._service, self._files(name), resource, self._display_name(name))

    def _files(self, name: str) -> JobFiles:
        return JobFiles(self._google, self._bucket, self._deployment, name)

    def _display_name(self, name: str) -> str:
        return f"{self._deployment}-{name}"


def _uploaded(files: JobFiles, parts: Iterable[WorkPart]) -> int:
    """Upload the parts; gives the bytes of their longest row, 0 where there is none."""
    longest = 0
    for part in parts:
        files.put(part)
        longest = max(longest, *map(len, part.lines.splitlines()))
    return longest
