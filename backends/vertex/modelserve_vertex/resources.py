"""Models and endpoints of one project and region: looked up, created, changed, removed; each change is waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import aiplatform_v1 as v1

from modelserve.errors import BackendError
from modelserve_vertex import names, operations, requests, traffic
from modelserve_vertex.errors import asking, status_of
from modelserve_vertex.google import Google
from modelserve_vertex.options import VertexOptions

Tell = Callable[[str], None]

#: How long removing one thing may take; deleting is quick there, undeploying takes minutes.
_REMOVE_S = 1200.0
_AGAIN_S = 60.0
_TRAFFIC_TRIES = 5


class Resources:
    """What exists at Vertex AI."""

    def __init__(self, google: Google, options: VertexOptions) -> None:
        self.google = google
        self._options = options

    def endpoint(self, name: str) -> Any | None:
        """The endpoint of this resource name; None where there is none."""
        with asking(f"Reading the endpoint {names.short(name)!r}"), contextlib.suppress(google_errors.NotFound):
            return self.google.endpoints.get_endpoint(request={"name": name}, **self.google.reading)
        return None

    def model(self, name: str) -> Any | None:
        """The model of this resource name; None where there is none."""
        with asking(f"Reading the model {names.short(name)!r}"), contextlib.suppress(google_errors.NotFound):
            return self.google.models.get_model(request={"name": name}, **self.google.reading)
        return None

    def endpoints(self, matching: str = names.MADE_HERE) -> list[Any]:
        with asking("Listing endpoints"):
            request = v1.ListEndpointsRequest(parent=self.google.parent, filter=matching)
            return list(self.google.endpoints.list_endpoints(request=request, **self.google.reading))

    def models(self, matching: str = names.MADE_HERE) -> list[Any]:
        with asking("Listing models"):
            request = v1.ListModelsRequest(parent=self.google.parent, filter=matching)
            return list(self.google.models.list_models(request=request, **self.google.reading))

    def upload(self, request: v1.UploadModelRequest, deadline: float) -> None:
        """Register a model; the image is taken in here, so that one that is missing is refused here."""
        self._done(f"Registering the model {request.model_id!r}", self.google.models.upload_model, request, deadline)

    def create(self, request: v1.CreateEndpointRequest, deadline: float) -> None:
        doing = f"Creating the endpoint {request.endpoint_id!r}"
        self._done(doing, self.google.endpoints.create_endpoint, request, deadline)

    def start_deploy(self, request: v1.DeployModelRequest) -> str:
        """Begin to deploy a model; returns the name of the operation, which goes on by itself."""
        with asking(f"Deploying {names.short(request.deployed_model.model)!r}"):
            call = self.google.endpoints.deploy_model
            return str(call(request=request, **self.google.writing).operation.name)

    def wait_deploy(self, operation: str, deadline: float, tell: Tell) -> None:
        """Return when a deploy is done, whoever began it."""
        self._wait(operation, "Deploying the model", deadline, tell)

    def mutate(self, request: v1.MutateDeployedModelRequest, deadline: float) -> None:
        doing = f"Scaling {names.short(request.endpoint)!r}"
        self._done(doing, self.google.endpoints.mutate_deployed_model, request, deadline)

    def move_traffic(self, endpoint: str, split: dict[str, int], labels: dict[str, str]) -> None:
        """Divide the traffic, and label the endpoint with its model; again where somebody changed it meanwhile."""
        for left in reversed(range(_TRAFFIC_TRIES)):
            found = self.endpoint(endpoint)
            if found is None or (dict(found.traffic_split), dict(found.labels)) == (split, labels):
                return
            try:
                request = requests.move_traffic(found, split, labels)
                with asking(f"Moving the traffic of {names.short(endpoint)!r}"):
                    self.google.endpoints.update_endpoint(request=request, **self.google.writing)
            except BackendError as error:
                if not left or status_of(error.__cause__ or error) != "ABORTED":
                    raise
            else:
                return

    def undeploy(self, endpoint: str, deployed_id: str) -> None:
        """Take one model off its endpoint; what traffic it had goes to the others. Quiet when it is not there."""
        self.settle(self.google.endpoints, endpoint)
        found = self.endpoint(endpoint)
        if found is None or deployed_id not in {one.id for one in found.deployed_models}:
            return
        split = traffic.without(deployed_id, dict(found.traffic_split))
        request = requests.undeploy_model(endpoint, deployed_id, split)
        self._removed(f"Undeploying from {names.short(endpoint)!r}", self.google.endpoints.undeploy_model, request)

    def remove_endpoint(self, endpoint: str) -> None:
        """Take all models off an endpoint, and remove it. Quiet when it is gone."""
        self.settle(self.google.endpoints, endpoint)
        found = self.endpoint(endpoint)
        if found is None:
            return
        for deployed in found.deployed_models:
            self.undeploy(endpoint, deployed.id)
        request = v1.DeleteEndpointRequest(name=endpoint)
        self._removed(
            f"Deleting the endpoint {names.short(endpoint)!r}", self.google.endpoints.delete_endpoint, request
        )

    def remove_model(self, model: str) -> None:
        """Remove a registered model. Quiet when it is gone."""
        self.settle(self.google.models, model)
        doing = f"Deleting the model {names.short(model)!r}"
        self._removed(doing, self.google.models.delete_model, v1.DeleteModelRequest(name=model))

    def settle(self, client: Any, resource: str) -> None:
        """Wait for what is under way on a resource, which may be its own creation."""
        deadline = time.monotonic() + _REMOVE_S
        with asking(f"Looking for operations of {resource}"), contextlib.suppress(google_errors.NotFound):
            listed = client.list_operations({"name": resource, "filter": "done=false"}, **self.google.reading)
            for operation in (one for one in listed.operations if not one.done):
                # Whether it failed is the matter of whoever began it.
                with contextlib.suppress(google_errors.GoogleAPICallError):
                    operations.wait(self.google, operation.name, deadline=deadline, poll_s=self._options.poll_s)

    def _removed(self, doing: str, call: Any, request: Any) -> None:
        """Remove something, and again while the service believes that it is still in use. Quiet when it is gone."""
        deadline = time.monotonic() + _AGAIN_S
        while True:
            try:
                self._done(doing, call, request, time.monotonic() + _REMOVE_S)
            except BackendError as error:
                status = status_of(error.__cause__ or error)
                if status == "NOT_FOUND":
                    return
                if status != "FAILED_PRECONDITION" or time.monotonic() > deadline:
                    raise
                time.sleep(self._options.poll_s)
            else:
                return

    def _done(self, doing: str, call: Any, request: Any, deadline: float) -> None:
        with asking(doing):
            operation = call(request=request, **self.google.writing).operation.name
            self._wait(operation, doing, deadline)

    def _wait(self, operation: str, doing: str, deadline: float, tell: Tell | None = None) -> None:
        with asking(doing):
            operations.wait(self.google, operation, deadline=deadline, poll_s=self._options.poll_s, on_stage=tell)
