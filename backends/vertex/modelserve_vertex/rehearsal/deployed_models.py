"""EndpointService, of deployed models: onto an endpoint, to another size, off it; and the containers behind each."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import aiplatform_v1 as v1

from modelserve_vertex import limits, state
from modelserve_vertex.options import EndpointKind
from modelserve_vertex.rehearsal.endpoints import Endpoints, check_split
from modelserve_vertex.rehearsal.fleets import Fleets, resized
from modelserve_vertex.rehearsal.models import Models
from modelserve_vertex.rehearsal.operations import Operations, Stage
from modelserve_vertex.rehearsal.quota import Quota

_BEFORE_START = ("STARTING_DEPLOYMENT", "PREPARING_MODEL", "CREATING_SERVING_CLUSTER", "STARTING_MODEL_SERVER")


class DeployedModels:
    """What is deployed to the endpoints, and what is about to be."""

    def __init__(
        self, operations: Operations, endpoints: Endpoints, models: Models, fleets: Fleets, quota: Quota
    ) -> None:
        self._operations = operations
        self._endpoints = endpoints
        self._models = models
        self._fleets = fleets
        self._quota = quota
        self._lock = threading.Lock()
        self._deploying: set[tuple[str, str]] = set()
        self._count = 0
        #: Where private endpoints are asked.
        self.address = ""

    def deploy_model(self, request: v1.DeployModelRequest) -> Any:
        endpoint = self._endpoints.require(request.endpoint)
        model = self._models.require(request.deployed_model.model)
        deployed = v1.DeployedModel(request.deployed_model)
        deployed.id = deployed.id or self._free_id()
        deployed.model_version_id = model.version_id
        split = {deployed.id if one == "0" else one: share for one, share in request.traffic_split.items()}
        with self._lock:
            self._refuse_another(endpoint, deployed, split)
            self._deploying.add((endpoint.name, deployed.id))

        def work(reach: Stage) -> v1.DeployModelResponse:
            try:
                self._start(endpoint, deployed, model, reach)
            finally:
                self._deploying.discard((endpoint.name, deployed.id))
            if state.kind(endpoint) is EndpointKind.PRIVATE:
                told = f"{self.address}/v1/models/{deployed.id}:predict"
                deployed.private_endpoints = v1.PrivateEndpoints(predict_http_uri=told)
            with self._endpoints.changing(endpoint):
                endpoint.deployed_models.append(deployed)
                if split:
                    endpoint.traffic_split = split
            return v1.DeployModelResponse(deployed_model=deployed)

        return self._operations.start(endpoint.name, v1.DeployModelOperationMetadata, work)

    def mutate_deployed_model(self, request: v1.MutateDeployedModelRequest) -> Any:
        endpoint = self._endpoints.require(request.endpoint)
        deployed = _deployed(endpoint, request.deployed_model.id)
        changed = v1.DeployedModel(deployed)
        for path in request.update_mask.paths:
            _copy_field(request.deployed_model, changed, path)

        def work(_reach: Stage) -> v1.MutateDeployedModelResponse:
            self._quota.take(endpoint.name, changed)
            try:
                fleet = self._fleets.find(endpoint.name, deployed.id)
                assert fleet is not None
                resized(fleet, changed.dedicated_resources.min_replica_count)
            except BaseException:
                self._quota.take(endpoint.name, deployed)
                raise
            with self._endpoints.changing(endpoint):
                kept = [changed if one.id == deployed.id else one for one in endpoint.deployed_models]
                endpoint.deployed_models = kept
            return v1.MutateDeployedModelResponse(deployed_model=changed)

        return self._operations.start(endpoint.name, v1.MutateDeployedModelOperationMetadata, work)

    def undeploy_model(self, request: v1.UndeployModelRequest) -> Any:
        endpoint = self._endpoints.require(request.endpoint)
        deployed = _deployed(endpoint, request.deployed_model_id)
        split = dict(request.traffic_split) or dict(endpoint.traffic_split)
        others = [one.id for one in endpoint.deployed_models if one.id != deployed.id]
        if others and split.get(deployed.id):
            raise google_errors.FailedPrecondition(
                f"The DeployedModel {deployed.id} has {split[deployed.id]} % of the traffic. Give a split without it."
            )

        def work(_reach: Stage) -> v1.UndeployModelResponse:
            with self._endpoints.changing(endpoint):
                endpoint.deployed_models = [one for one in endpoint.deployed_models if one.id != deployed.id]
                endpoint.traffic_split = {one: share for one, share in split.items() if one in others}
            self._fleets.stop(endpoint.name, deployed.id)
            self._quota.give_back(endpoint.name, deployed.id)
            return v1.UndeployModelResponse()

        return self._operations.start(endpoint.name, v1.UndeployModelOperationMetadata, work)

    def _start(self, endpoint: Any, deployed: Any, model: Any, reach: Stage) -> None:
        self._quota.take(endpoint.name, deployed)
        try:
            for stage in _BEFORE_START:
                reach(stage)
            replicas = max(1, deployed.dedicated_resources.min_replica_count)
            self._fleets.start(endpoint.name, deployed, model, replicas)
        except BaseException:
            self._quota.give_back(endpoint.name, deployed.id)
            raise
        reach("FINISHING_UP")

    def _refuse_another(self, endpoint: Any, deployed: Any, split: Mapping[str, int]) -> None:
        known = {(endpoint.name, one.id) for one in endpoint.deployed_models}
        if (endpoint.name, deployed.id) in known | self._deploying:
            raise google_errors.AlreadyExists(f"The DeployedModel {deployed.id} already exists in {endpoint.name}.")
        most = limits.KIND_LIMITS[state.kind(endpoint)].models
        if most is not None and len(endpoint.deployed_models) >= most:
            raise google_errors.FailedPrecondition(f"A private endpoint holds at most {most} DeployedModel.")
        check_split(endpoint, split, deployed.id)

    def _free_id(self) -> str:
        with self._lock:
            self._count += 1
            return str(10**18 + self._count)


def _deployed(endpoint: Any, deployed_id: str) -> Any:
    for deployed in endpoint.deployed_models:
        if deployed.id == deployed_id:
            return deployed
    raise google_errors.NotFound(f"Endpoint {endpoint.name} has no DeployedModel {deployed_id}.")


def _copy_field(source: Any, target: Any, path: str) -> None:
    """Set in `target` what stands in `source` at a mask's path."""
    *outer, last = path.split(".")
    for name in outer:
        source, target = getattr(source, name), getattr(target, name)
    setattr(target, last, getattr(source, last))
