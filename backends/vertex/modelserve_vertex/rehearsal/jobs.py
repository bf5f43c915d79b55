"""JobService, of batch prediction jobs: each has containers of its own for as long as it runs, and no endpoint.

    PENDING ──containers ready──► RUNNING ──► SUCCEEDED
       │                             │  └───► FAILED
       └───────────cancel────────────┴──────► CANCELLED

What was written stays in the bucket.
"""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2

from modelserve.standin.faults import Faults
from modelserve_vertex.rehearsal.containers import routes
from modelserve_vertex.rehearsal.filters import matching
from modelserve_vertex.rehearsal.fleets import Fleets
from modelserve_vertex.rehearsal.models import Models
from modelserve_vertex.rehearsal.operations import Operations, status
from modelserve_vertex.rehearsal.scoring import Scoring
from modelserve_vertex.rehearsal.storage import Objects

_FIRST = 10**18
#: A job's only model has no id that anybody sees.
_MODEL_ID = "1"
#: By which faults know a request of the service to a container.
REQUEST = "BatchRequest"
_STATE: Any = v1.JobState
_ENDED = {_STATE.JOB_STATE_SUCCEEDED, _STATE.JOB_STATE_FAILED, _STATE.JOB_STATE_CANCELLED}


class _Running:
    """One job, and what is done for it."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.cancelled = threading.Event()
        self.scoring: Scoring | None = None

    def told(self) -> Any:
        """The job as it is now."""
        told = v1.BatchPredictionJob(self.job)
        if self.scoring is not None:
            failed = sum(self.scoring.errors.values())
            told.completion_stats = v1.CompletionStats(successful_count=self.scoring.answered, failed_count=failed)
        return told


class BatchJobs:
    """The jobs, whether they run or not."""

    def __init__(
        self, operations: Operations, models: Models, objects: Objects, fleets: Fleets, faults: Faults
    ) -> None:
        self._operations = operations
        self._models = models
        self._objects = objects
        self._fleets = fleets
        self._faults = faults
        self._numbers = itertools.count(_FIRST)
        self._lock = threading.Lock()
        self._found: dict[str, _Running] = {}
        self._threads: list[threading.Thread] = []

    @property
    def all(self) -> list[Any]:
        with self._lock:
            return [running.told() for running in self._found.values()]

    def create_batch_prediction_job(self, request: v1.CreateBatchPredictionJobRequest) -> Any:
        job = v1.BatchPredictionJob(request.batch_prediction_job)
        model = self._models.require(job.model)
        job.name = f"{request.parent}/batchPredictionJobs/{next(self._numbers)}"
        job.model_version_id = model.version_id
        job.state = _STATE.JOB_STATE_PENDING
        job.create_time = datetime.now(UTC)
        running = _Running(job)
        thread = threading.Thread(target=self._run, args=(running, model), name=job.name, daemon=True)
        with self._lock:
            self._found[job.name] = running
            self._threads.append(thread)
            told = running.told()
        thread.start()
        return told

    def get_batch_prediction_job(self, request: v1.GetBatchPredictionJobRequest) -> Any:
        return self._require(request.name).told()

    def list_batch_prediction_jobs(
        self, request: v1.ListBatchPredictionJobsRequest
    ) -> v1.ListBatchPredictionJobsResponse:
        here = [job for job in self.all if job.name.startswith(f"{request.parent}/batchPredictionJobs/")]
        return v1.ListBatchPredictionJobsResponse(batch_prediction_jobs=matching(here, request.filter))

    def cancel_batch_prediction_job(self, request: v1.CancelBatchPredictionJobRequest) -> empty_pb2.Empty:
        running = self._require(request.name)
        with self._lock:
            if running.job.state in _ENDED:
                raise google_errors.FailedPrecondition(f"{request.name} has ended and cannot be cancelled.")
            running.job.state = _STATE.JOB_STATE_CANCELLING
            running.cancelled.set()
        self._fleets.stop(request.name, _MODEL_ID)
        return empty_pb2.Empty()

    def delete_batch_prediction_job(self, request: v1.DeleteBatchPredictionJobRequest) -> Any:
        running = self._require(request.name)
        if running.job.state not in _ENDED:
            raise google_errors.FailedPrecondition(f"{request.name} runs. Cancel it before it is deleted.")

        def work(_reach: Any) -> empty_pb2.Empty:
            with self._lock:
                self._found.pop(request.name, None)
            return empty_pb2.Empty()

        # Not below the job: the library knows no operations there.
        location = request.name.partition("/batchPredictionJobs/")[0]
        return self._operations.start(location, v1.DeleteOperationMetadata, work)

    def users(self, model: str) -> list[str]:
        """The jobs under way that a model answers."""
        return [job.name for job in self.all if job.model.partition("@")[0] == model and job.state not in _ENDED]

    def close(self) -> None:
        """Cancel what is under way, and wait for it."""
        with self._lock:
            for running in self._found.values():
                running.cancelled.set()
        for thread in self._threads:
            thread.join()

    def _run(self, running: _Running, model: Any) -> None:
        job = running.job
        failure: google_errors.GoogleAPICallError | None = None
        try:
            self._answered(running, model)
        except google_errors.GoogleAPICallError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # a fault of the stand-in, seen by whoever asks for the job
            failure = google_errors.InternalServerError(repr(error))
        finally:
            self._fleets.stop(job.name, _MODEL_ID)
        with self._lock:
            if running.cancelled.is_set():
                failure = google_errors.Cancelled("The job was cancelled.")
                job.state = _STATE.JOB_STATE_CANCELLED
            else:
                job.state = _STATE.JOB_STATE_SUCCEEDED if failure is None else _STATE.JOB_STATE_FAILED
            job.end_time = datetime.now(UTC)
            if failure is not None:
                job.error = status(failure)

    def _answered(self, running: _Running, model: Any) -> None:
        job = running.job
        resources = job.dedicated_resources
        deployed = v1.DeployedModel(id=_MODEL_ID, dedicated_resources={"machine_spec": resources.machine_spec})
        fleet = self._fleets.start(job.name, deployed, model, max(1, resources.starting_replica_count))
        with self._lock:
            if not running.cancelled.is_set():
                job.state = _STATE.JOB_STATE_RUNNING
                job.start_time = datetime.now(UTC)
        path, _ = routes(job.name, _MODEL_ID, model.container_spec)
        running.scoring = Scoring(
            self._objects,
            fleet,
            path,
            meet=lambda: self._faults.meet(REQUEST),
            is_wanted=lambda: not running.cancelled.is_set(),
        )
        directory = _directory(job, model)
        running.scoring.run(job, directory)
        job.output_info = v1.BatchPredictionJob.OutputInfo(gcs_output_directory=directory)
        if not running.scoring.answered:
            why = next(iter(running.scoring.errors), "nothing was asked")
            raise google_errors.FailedPrecondition(f"The job failed because all of its instances failed: {why}")

    def _require(self, name: str) -> _Running:
        with self._lock:
            found = self._found.get(name)
        if found is None:
            raise google_errors.NotFound(f"The BatchPredictionJob {name} does not exist.")
        return found


def _directory(job: Any, model: Any) -> str:
    """Where the service puts results: a new folder for each job."""
    time = job.create_time.strftime("%Y_%m_%dT%H_%M_%S_%f")[:-3]
    prefix = job.output_config.gcs_destination.output_uri_prefix.rstrip("/")
    return f"{prefix}/prediction-{model.display_name}-{time}Z"
