"""EndpointService: endpoints, the models deployed to them, and the containers behind those."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2

from modelserve.standin.fleet import Fleet, NoCapacityError, NotHealthyError
from modelserve_vertex import limits, names, state
from modelserve_vertex.options import EndpointKind
from modelserve_vertex.rehearsal.filters import matching
from modelserve_vertex.rehearsal.models import Models
from modelserve_vertex.rehearsal.operations import Operations, Stage
from modelserve_vertex.rehearsal.quota import Quota

PROJECT_NUMBER = "123456789012"
_LINES_TOLD = 20

OpenFleet = Callable[[str, Any, Any], Fleet]


class Endpoints:
    """The endpoints.

    Args:
        open_fleet: Makes the still empty fleet of an endpoint's deployed model.
    """

    def __init__(self, operations: Operations, models: Models, quota: Quota, open_fleet: OpenFleet) -> None:
        self._operations = operations
        self._models = models
        self._quota = quota
        self._open_fleet = open_fleet
        self._lock = threading.RLock()
        self._found: dict[str, Any] = {}
        self._fleets: dict[tuple[str, str], Fleet] = {}
        self._starting: list[Fleet] = []
        self._is_closed = False
        self.ended: dict[str, list[Fleet]] = {}
        #: Where private endpoints are asked.
        self.address = ""

    @property
    def all(self) -> list[Any]:
        with self._lock:
            return list(self._found.values())

    @property
    def known(self) -> list[str]:
        """Endpoints that have or had containers."""
        with self._lock:
            return sorted({name for name, _ in self._fleets} | set(self.ended))

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
        with self._lock:
            endpoint = self.require(request.endpoint.name)
            if request.endpoint.etag and request.endpoint.etag != endpoint.etag:
                raise google_errors.Aborted(f"The etag of {endpoint.name} is {endpoint.etag}: it was changed.")
            for path in request.update_mask.paths:
                if path == "traffic_split":
                    _check_split(endpoint, dict(request.endpoint.traffic_split))
                    endpoint.traffic_split = dict(request.endpoint.traffic_split)
                elif path in {"labels", "display_name", "description"}:
                    setattr(endpoint, path, getattr(request.endpoint, path))
                else:
                    raise google_errors.InvalidArgument(f"The stand-in does not update {path!r}.")
            endpoint.etag = _etag()
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

    def deploy_model(self, request: v1.DeployModelRequest) -> Any:
        endpoint = self.require(request.endpoint)
        model = self._models.require(request.deployed_model.model)
        deployed = v1.DeployedModel(request.deployed_model)
        deployed.id = deployed.id or str(10**18 + len(self._fleets))
        deployed.model_version_id = model.version_id
        split = {deployed.id if one == "0" else one: share for one, share in request.traffic_split.items()}
        with self._lock:
            self._refuse_another(endpoint, deployed, split)

        def work(reach: Stage) -> v1.DeployModelResponse:
            self._quota.take(endpoint.name, deployed)
            try:
                self._start(endpoint, deployed, model, reach)
            except BaseException:
                self._quota.give_back(endpoint.name, deployed.id)
                raise
            if state.kind(endpoint) is EndpointKind.PRIVATE:
                told = f"{self.address}/v1/models/{deployed.id}:predict"
                deployed.private_endpoints = v1.PrivateEndpoints(predict_http_uri=told)
            with self._lock:
                endpoint.deployed_models.append(deployed)
                if split:
                    endpoint.traffic_split = split
                endpoint.etag = _etag()
            return v1.DeployModelResponse(deployed_model=deployed)

        return self._operations.start(endpoint.name, v1.DeployModelOperationMetadata, work)

    def mutate_deployed_model(self, request: v1.MutateDeployedModelRequest) -> Any:
        endpoint = self.require(request.endpoint)
        deployed = self._deployed(endpoint, request.deployed_model.id)
        changed = v1.DeployedModel(deployed)
        for path in request.update_mask.paths:
            _copy_field(request.deployed_model, changed, path)

        def work(_reach: Stage) -> v1.MutateDeployedModelResponse:
            self._quota.take(endpoint.name, changed)
            try:
                _resized(self._fleets[endpoint.name, deployed.id], changed.dedicated_resources.min_replica_count)
            except BaseException:
                self._quota.take(endpoint.name, deployed)
                raise
            with self._lock:
                kept = [changed if one.id == deployed.id else one for one in endpoint.deployed_models]
                endpoint.deployed_models = kept
                endpoint.etag = _etag()
            return v1.MutateDeployedModelResponse(deployed_model=changed)

        return self._operations.start(endpoint.name, v1.MutateDeployedModelOperationMetadata, work)

    def undeploy_model(self, request: v1.UndeployModelRequest) -> Any:
        endpoint = self.require(request.endpoint)
        deployed = self._deployed(endpoint, request.deployed_model_id)
        split = dict(request.traffic_split) or dict(endpoint.traffic_split)
        others = [one.id for one in endpoint.deployed_models if one.id != deployed.id]
        if others and split.get(deployed.id):
            raise google_errors.FailedPrecondition(
                f"The DeployedModel {deployed.id} has {split[deployed.id]} % of the traffic. Give a split without it."
            )

        def work(_reach: Stage) -> v1.UndeployModelResponse:
            with self._lock:
                endpoint.deployed_models = [one for one in endpoint.deployed_models if one.id != deployed.id]
                endpoint.traffic_split = {one: share for one, share in split.items() if one in others}
                endpoint.etag = _etag()
                fleet = self._fleets.pop((endpoint.name, deployed.id))
                self.ended.setdefault(endpoint.name, []).append(fleet)
            fleet.stop()
            self._quota.give_back(endpoint.name, deployed.id)
            return v1.UndeployModelResponse()

        return self._operations.start(endpoint.name, v1.UndeployModelOperationMetadata, work)

    def require(self, name: str) -> Any:
        """The endpoint of this name, by which alone it may be changed."""
        with self._lock:
            found = self._found.get(name)
        if found is None:
            raise google_errors.NotFound(f"Endpoint `{name}` is not found.")
        return found

    def private(self, deployed_id: str) -> Any:
        """The private endpoint that has this deployed model."""
        for endpoint in self.all:
            if state.kind(endpoint) is EndpointKind.PRIVATE and deployed_id in {d.id for d in endpoint.deployed_models}:
                return endpoint
        raise google_errors.NotFound(f"There is no private DeployedModel {deployed_id}.")

    def fleet(self, name: str, deployed_id: str) -> Fleet:
        return self._fleets[name, deployed_id]

    def fleets(self, name: str) -> list[Fleet]:
        """Of one endpoint: those that run, and those that ran."""
        with self._lock:
            running = [fleet for (endpoint, _), fleet in self._fleets.items() if endpoint == name]
            return [*self.ended.get(name, []), *running]

    def users(self, model: str) -> list[str]:
        """The endpoints to which a model is deployed."""
        with self._lock:
            return [
                one.name
                for one in self._found.values()
                if any(deployed.model.partition("@")[0] == model for deployed in one.deployed_models)
            ]

    def close(self) -> None:
        """End every container, those that are about to start too."""
        with self._lock:
            self._is_closed = True
            running = [*self._starting, *self._fleets.values()]
            self._fleets.clear()
        for fleet in running:
            fleet.stop()

    def _described(self, endpoint: Any) -> Any:
        """The endpoint as it is told, with the replicas that answer now."""
        with self._lock:
            told = v1.Endpoint(endpoint)
            for deployed in told.deployed_models:
                fleet = self._fleets.get((endpoint.name, deployed.id))
                ready = 0 if fleet is None else fleet.ready
                deployed.status = v1.DeployedModel.Status(available_replica_count=ready)
            return told

    def _start(self, endpoint: Any, deployed: Any, model: Any, reach: Stage) -> None:
        for stage in ("STARTING_DEPLOYMENT", "PREPARING_MODEL", "CREATING_SERVING_CLUSTER"):
            reach(stage)
        with self._lock:
            if self._is_closed:
                raise google_errors.ServiceUnavailable("The stand-in ends.")
            fleet = self._open_fleet(endpoint.name, deployed, model)
            self._starting.append(fleet)
        reach("STARTING_MODEL_SERVER")
        try:
            _resized(fleet, max(1, deployed.dedicated_resources.min_replica_count))
        except BaseException:
            with self._lock:
                self.ended.setdefault(endpoint.name, []).append(fleet)
            fleet.stop()
            raise
        finally:
            self._starting.remove(fleet)
        with self._lock:
            self._fleets[endpoint.name, deployed.id] = fleet
        reach("FINISHING_UP")

    def _refuse_known(self, name: str) -> None:
        if name in self._found:
            raise google_errors.AlreadyExists(f"Endpoint {name} already exists.")

    def _refuse_another(self, endpoint: Any, deployed: Any, split: Mapping[str, int]) -> None:
        if any(one.id == deployed.id for one in endpoint.deployed_models):
            raise google_errors.AlreadyExists(f"The DeployedModel {deployed.id} already exists in {endpoint.name}.")
        most = limits.KIND_LIMITS[state.kind(endpoint)].models
        if most is not None and len(endpoint.deployed_models) >= most:
            raise google_errors.FailedPrecondition(f"A private endpoint holds at most {most} DeployedModel.")
        _check_split(endpoint, split, deployed.id)

    def _deployed(self, endpoint: Any, deployed_id: str) -> Any:
        for deployed in endpoint.deployed_models:
            if deployed.id == deployed_id:
                return deployed
        raise google_errors.NotFound(f"Endpoint {endpoint.name} has no DeployedModel {deployed_id}.")


def _resized(fleet: Fleet, replicas: int) -> None:
    try:
        fleet.resize(replicas)
    except NotHealthyError as error:
        told = "\n".join(error.lines[-_LINES_TOLD:])
        raise google_errors.FailedPrecondition(
            f"Model server exited unexpectedly or never became healthy. Model server logs: {told}"
        ) from error
    except NoCapacityError as error:
        raise google_errors.ResourceExhausted(
            f"The machine type is out of stock in this region for now. {error} Try another region or machine type."
        ) from error


def _check_split(endpoint: Any, split: Mapping[str, int], *further: str) -> None:
    known = {*further, *(deployed.id for deployed in endpoint.deployed_models)}
    unknown = sorted(set(split) - known)
    if unknown:
        raise google_errors.InvalidArgument(f"traffic_split names {unknown}, which are not deployed to the endpoint.")


def _copy_field(source: Any, target: Any, path: str) -> None:
    """Set in `target` what stands in `source` at a mask's path."""
    *outer, last = path.split(".")
    for name in outer:
        source, target = getattr(source, name), getattr(target, name)
    setattr(target, last, getattr(source, last))


def _etag() -> str:
    return uuid.uuid4().hex
