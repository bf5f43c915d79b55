"""EndpointService, of endpoints: made, told, changed under their etag, removed."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2

from modelserve_vertex import names, state
from modelserve_vertex.options import EndpointKind
from modelserve_vertex.rehearsal.filters import matching
from modelserve_vertex.rehearsal.fleets import Fleets
from modelserve_vertex.rehearsal.operations import Operations, Stage

PROJECT_NUMBER = "123456789012"


class Endpoints:
    """The endpoints.

    Args:
        fleets: Their containers, which are counted where an endpoint is told.
    """

    def __init__(self, operations: Operations, fleets: Fleets) -> None:
        self._operations = operations
        self._fleets = fleets
        self._lock = threading.RLock()
        self._found: dict[str, Any] = {}

    @property
    def all(self) -> list[Any]:
        with self._lock:
            return list(self._found.values())

    def create_endpoint(self, request: v1.CreateEndpointRequest) -> Any:
        name = f"{request.parent}/endpoints/{request.endpoint_id or 10**18 + len(self._found)}"
        self._refuse_known(name)
        endpoint = v1.Endpoint(request.endpoint)
        endpoint.name, endpoint.etag = name, _etag()
        if endpoint.dedicated_endpoint_enabled:
            region = request.parent.rpartition("/")[2]
            endpoint.dedicated_endpoint_dns = f"{names.short(name)}.{region}-{PROJECT_NUMBER}.prediction.vertexai.goog"

        def work(_reach: Stage) -> Any:
            with self._lock:
                self._refuse_known(name)
                self._found[name] = endpoint
            return endpoint

        return self._operations.start(name, v1.CreateEndpointOperationMetadata, work)

    def get_endpoint(self, request: v1.GetEndpointRequest) -> Any:
        return self._described(self.require(request.name))

    def list_endpoints(self, request: v1.ListEndpointsRequest) -> v1.ListEndpointsResponse:
        here = [self._described(one) for one in self.all if one.name.startswith(f"{request.parent}/endpoints/")]
        return v1.ListEndpointsResponse(endpoints=matching(here, request.filter))

    def update_endpoint(self, request: v1.UpdateEndpointRequest) -> Any:
        endpoint = self.require(request.endpoint.name)
        with self.changing(endpoint):
            if request.endpoint.etag and request.endpoint.etag != endpoint.etag:
                raise google_errors.Aborted(f"The etag of {endpoint.name} is {endpoint.etag}: it was changed.")
            for path in request.update_mask.paths:
                if path == "traffic_split":
                    check_split(endpoint, dict(request.endpoint.traffic_split))
                    endpoint.traffic_split = dict(request.endpoint.traffic_split)
                elif path in {"labels", "display_name", "description"}:
                    setattr(endpoint, path, getattr(request.endpoint, path))
                else:
                    raise google_errors.InvalidArgument(f"The stand-in does not update {path!r}.")
        return self._described(endpoint)

    def delete_endpoint(self, request: v1.DeleteEndpointRequest) -> Any:
        endpoint = self.require(request.name)
        if endpoint.deployed_models:
            raise google_errors.FailedPrecondition(
                f"Endpoint {endpoint.name} has deployed or being-deployed DeployedModel(s)."
            )

        def work(_reach: Stage) -> empty_pb2.Empty:
            with self._lock:
                self._found.pop(endpoint.name, None)
            return empty_pb2.Empty()

        return self._operations.start(endpoint.name, v1.DeleteOperationMetadata, work)

    def require(self, name: str) -> Any:
        """The endpoint of this name, to be read; it is changed within `changing`."""
        with self._lock:
            found = self._found.get(name)
        if found is None:
            raise google_errors.NotFound(f"Endpoint `{name}` is not found.")
        return found

    @contextlib.contextmanager
    def changing(self, endpoint: Any) -> Iterator[None]:
        """Around a change: nobody else makes one meanwhile, and the etag is another one afterwards."""
        with self._lock:
            yield
            endpoint.etag = _etag()

    def private(self, deployed_id: str) -> Any:
        """The private endpoint that has this deployed model."""
        for endpoint in self.all:
            if state.kind(endpoint) is EndpointKind.PRIVATE and deployed_id in {d.id for d in endpoint.deployed_models}:
                return endpoint
        raise google_errors.NotFound(f"There is no private DeployedModel {deployed_id}.")

    def users(self, model: str) -> list[str]:
        """The endpoints to which a model is deployed."""
        return [
            one.name
            for one in self.all
            if any(deployed.model.partition("@")[0] == model for deployed in one.deployed_models)
        ]

    def _described(self, endpoint: Any) -> Any:
        """The endpoint as it is told, with the replicas that answer now."""
        with self._lock:
            told = v1.Endpoint(endpoint)
        for deployed in told.deployed_models:
            fleet = self._fleets.find(endpoint.name, deployed.id)
            ready = 0 if fleet is None else fleet.ready
            deployed.status = v1.DeployedModel.Status(available_replica_count=ready)
        return told

    def _refuse_known(self, name: str) -> None:
        if name in self._found:
            raise google_errors.AlreadyExists(f"Endpoint {name} already exists.")


def check_split(endpoint: Any, split: Mapping[str, int], *further: str) -> None:
    """Refuse a split that names what is not deployed, `further` aside."""
    known = {*further, *(deployed.id for deployed in endpoint.deployed_models)}
    unknown = sorted(set(split) - known)
    if unknown:
        raise google_errors.InvalidArgument(f"traffic_split names {unknown}, which are not deployed to the endpoint.")


def _etag() -> str:
    return uuid.uuid4().hex
