"""Vertex AI on this machine: one core of state and real containers, which a REST and a gRPC front answer for.

    REST ─┐                       ┌─ Models, Operations ── Objects (Cloud Storage)
          ├─► call(name, request) ┼─ Endpoints ─ DeployedModels ─┐
    gRPC ─┘   faults, validation  └─ BatchJobs ──────────────────┴─ Fleets of containers

A container is `python -m modelserve.runtime` under AIP_*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.api_core import exceptions as google_errors

from modelserve.standin.faults import Failing, Fault, Faults, Interrupted, NotYetSeen, Throttled, interrupt
from modelserve.standin.fleet import Fleet
from modelserve_vertex import names
from modelserve_vertex.rehearsal.containers import container_spec
from modelserve_vertex.rehearsal.deployed_models import DeployedModels
from modelserve_vertex.rehearsal.door import Door
from modelserve_vertex.rehearsal.endpoints import PROJECT_NUMBER, Endpoints
from modelserve_vertex.rehearsal.fleets import Fleets
from modelserve_vertex.rehearsal.jobs import BatchJobs
from modelserve_vertex.rehearsal.models import Models
from modelserve_vertex.rehearsal.monitoring import Monitoring
from modelserve_vertex.rehearsal.neighbours import Neighbours
from modelserve_vertex.rehearsal.operations import Operations
from modelserve_vertex.rehearsal.quota import Quota
from modelserve_vertex.rehearsal.storage import Objects, StorageApi
from modelserve_vertex.validation import check


class VertexCloud:
    """One region.

    Attributes:
        faults: What is to go wrong; operations by their names in the API.
        images: Image references that can be pulled; None for any.
        address: Where the fronts answer; containers fetch their models there.
    """

    def __init__(self, *, bucket: str, region: str, startup_s: float = 120.0) -> None:
        self.faults = Faults()
        self.images: set[str] | None = None
        self.address = ""
        self.operations = Operations()
        self.quota = Quota()
        self.objects = Objects()
        self.objects.add_bucket(bucket, region)
        self.models = Models(self.operations, self.objects, self._has_image, self._users)
        self.fleets = Fleets(self._open_fleet)
        self.endpoints = Endpoints(self.operations, self.fleets)
        self.deployed = DeployedModels(self.operations, self.endpoints, self.models, self.fleets, self.quota)
        self.jobs = BatchJobs(self.operations, self.models, self.objects, self.fleets, self.faults)
        self.monitoring = Monitoring()
        self.door = Door(self.endpoints, self.models, self.fleets, self.monitoring)
        self.storage = StorageApi(self.objects)
        self.neighbours = Neighbours(self.fleets, self.monitoring)
        self._startup_s = startup_s
        self._handlers = self._collected()

    def call(self, name: str, request: Any) -> Any:
        """What the service answers to one call; `request` is of the library's own class.

        Raises:
            GoogleAPICallError: it refuses.
        """
        handler = self._handlers.get(name)
        if handler is None:
            raise google_errors.MethodNotImplemented(f"The stand-in does not answer {name}.")
        violations = check(request)
        if violations:
            raise google_errors.InvalidArgument("; ".join(map(str, violations)))
        return handler(request)

    def meet(self, operation: str) -> Fault | None:
        """What a call meets before it is done.

        Raises:
            GoogleAPICallError: it is refused.
        """
        fault = self.faults.meet(operation)
        if isinstance(fault, Failing):
            raise _refusal(fault)
        if isinstance(fault, Throttled):
            raise google_errors.ResourceExhausted(f"Quota exceeded for requests of {operation} per minute.")
        if isinstance(fault, NotYetSeen):
            raise google_errors.NotFound(f"{operation}: not found.")
        return fault

    def meet_after(self, fault: Fault | None) -> None:
        """What a call meets once it is done."""
        if isinstance(fault, Interrupted):
            interrupt()

    def leftovers(self) -> list[str]:
        """Everything that exists: resources, objects, containers."""
        found = [one.name for one in (*self.models.all, *self.endpoints.all, *self.jobs.all)]
        for bucket in self.objects.regions:
            found += [f"gs://{bucket}/{name}" for name in self.objects.names(bucket)]
        found += [f"container {container.name}" for fleet in self._all_fleets() for container in fleet.containers]
        return sorted(found)

    def close(self) -> None:
        """End every container. Quiet when called twice."""
        self.fleets.close()  # so that no operation waits for containers to become ready
        self.operations.close()
        self.jobs.close()
        self.fleets.close()
        self.objects.close()

    def _all_fleets(self) -> list[Fleet]:
        return [fleet for owner in self.fleets.owners for fleet in self.fleets.of(owner)]

    def _collected(self) -> Mapping[str, Callable[[Any], Any]]:
        """Handlers by the name of their method in the API."""
        models, endpoints, deployed, jobs = self.models, self.endpoints, self.deployed, self.jobs
        operations = self.operations
        return {
            "UploadModel": models.upload_model,
            "GetModel": models.get_model,
            "ListModels": models.list_models,
            "DeleteModel": models.delete_model,
            "CreateEndpoint": endpoints.create_endpoint,
            "GetEndpoint": endpoints.get_endpoint,
            "ListEndpoints": endpoints.list_endpoints,
            "UpdateEndpoint": endpoints.update_endpoint,
            "DeleteEndpoint": endpoints.delete_endpoint,
            "DeployModel": deployed.deploy_model,
            "MutateDeployedModel": deployed.mutate_deployed_model,
            "UndeployModel": deployed.undeploy_model,
            "CreateBatchPredictionJob": jobs.create_batch_prediction_job,
            "GetBatchPredictionJob": jobs.get_batch_prediction_job,
            "ListBatchPredictionJobs": jobs.list_batch_prediction_jobs,
            "CancelBatchPredictionJob": jobs.cancel_batch_prediction_job,
            "DeleteBatchPredictionJob": jobs.delete_batch_prediction_job,
            "GetOperation": operations.get,
            "ListOperations": operations.list,
            "CancelOperation": operations.cancel,
        }

    def _has_image(self, reference: str) -> bool:
        return self.images is None or reference in self.images

    def _users(self, model: str) -> list[str]:
        return [*self.endpoints.users(model), *self.jobs.users(model)]

    def _open_fleet(self, owner: str, deployed: Any, model: Any) -> Fleet:
        spec = container_spec(
            owner,
            deployed,
            model,
            project_number=PROJECT_NUMBER,
            storage_uri=self.models.storage_uri(model),
            storage_address=self.address,
        )
        name = f"{names.short(owner)}-{deployed.id}"
        startup_s = min(self._startup_s, float(model.container_spec.deployment_timeout.seconds or self._startup_s))
        return Fleet(name, spec, startup_s=startup_s, switches=lambda: self.faults.switches)


def _refusal(fault: Failing) -> google_errors.GoogleAPICallError:
    import grpc

    found: google_errors.GoogleAPICallError = google_errors.from_grpc_status(grpc.StatusCode[fault.code], fault.message)
    return found
