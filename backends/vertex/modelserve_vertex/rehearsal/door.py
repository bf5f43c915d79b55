"""The door in front of containers: which endpoint is meant, what it lets through, which model gets the request.

    request ─► right host? small enough? in the quota? ─► by the traffic split ─► a container

Its answer comes back as it is, status and all.
"""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import httpx
from google.api_core import exceptions as google_errors
from google.cloud import aiplatform_v1 as v1
from google.protobuf import json_format

from modelserve.standin.loopback import Answered
from modelserve_vertex import names, state
from modelserve_vertex.limits import KIND_LIMITS, KindLimits
from modelserve_vertex.options import EndpointKind
from modelserve_vertex.rehearsal.containers import routes
from modelserve_vertex.rehearsal.endpoints import Endpoints
from modelserve_vertex.rehearsal.fleets import Fleets
from modelserve_vertex.rehearsal.models import Models
from modelserve_vertex.rehearsal.monitoring import Monitoring
from modelserve_vertex.rehearsal.pieces import begun, require_within

#: Used where an endpoint has none of its own; a third party's note, to be seen live.
_DEFAULT_TIMEOUT_S = 600.0
_MINUTE_S = 60
_PASSED_ON = ("content-type",)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where one request goes."""

    endpoint: Any
    deployed: Any
    model: Any
    limits: KindLimits


class Door:
    """Answers predictions.

    Attributes:
        requests_per_minute: Of all shared endpoints together; None where the documented quota counts.
    """

    def __init__(self, endpoints: Endpoints, models: Models, fleets: Fleets, monitoring: Monitoring) -> None:
        self._endpoints = endpoints
        self._monitoring = monitoring
        self._models = models
        self._fleets = fleets
        self._lock = threading.Lock()
        self._counted: dict[int, int] = {}
        self.requests_per_minute: int | None = None

    def raw(self, endpoint: str, body: bytes, content_type: str, host: str, *, streams: bool = False) -> Answered:
        """A container's answer to a body that is carried untouched.

        Args:
            host: The name by which the endpoint was asked.
            streams: Whether the answer was asked for in pieces.
        """
        chosen = self._chosen(endpoint, len(body), host)
        if streams and not chosen.limits.streams:
            raise google_errors.FailedPrecondition("StreamRawPredict is for dedicated endpoints only.")
        answered = self._forwarded(chosen, body, content_type, streams=streams)
        headers = {name: value for name, value in answered.headers.items() if name.lower() in _PASSED_ON}
        headers["x-vertex-ai-endpoint-id"] = names.short(endpoint)
        headers["x-vertex-ai-deployed-model-id"] = chosen.deployed.id
        return replace(answered, headers=headers)

    def predict(self, request: v1.PredictRequest, host: str) -> v1.PredictResponse:
        """Instances and predictions, as JSON between the door and the container."""
        message = v1.PredictRequest.pb(request)
        content: dict[str, Any] = {"instances": [json_format.MessageToDict(one) for one in message.instances]}
        if message.HasField("parameters"):
            content["parameters"] = json_format.MessageToDict(message.parameters)
        body = json.dumps(content).encode()
        chosen = self._chosen(request.endpoint, len(body), host)
        answered = self._forwarded(chosen, body, "application/json")
        if answered.status != 200:
            # What a container refuses is told like this, whatever its status was.
            raise google_errors.FailedPrecondition(answered.body.decode(errors="replace"))
        response = v1.PredictResponse(
            deployed_model_id=chosen.deployed.id,
            model=chosen.model.name,
            model_version_id=chosen.model.version_id,
            model_display_name=chosen.model.display_name,
        )
        for prediction in json.loads(answered.body)["predictions"]:
            json_format.ParseDict(prediction, v1.PredictResponse.pb(response).predictions.add())
        return response

    def _chosen(self, name: str, size_bytes: int, host: str) -> Chosen:
        endpoint = self._endpoints.require(name)
        kind = state.kind(endpoint)
        _check_host(endpoint, kind, host)
        limits = KIND_LIMITS[kind]
        if size_bytes > limits.payload_bytes:
            raise google_errors.InvalidArgument(
                f"Request payload size exceeds the limit: {limits.payload_bytes} bytes."
            )
        if limits.requests_per_minute is not None:
            self._count(self.requests_per_minute or limits.requests_per_minute)
        split = {one: share for one, share in dict(endpoint.traffic_split).items() if share}
        if not split:
            raise google_errors.FailedPrecondition(f"Endpoint {name} doesn't have traffic_split.")
        (picked,) = random.choices(list(split), weights=list(split.values()))  # noqa: S311  # shares, no secrets
        deployed = next(one for one in endpoint.deployed_models if one.id == picked)
        return Chosen(endpoint, deployed, self._models.require(deployed.model), limits)

    def _forwarded(self, chosen: Chosen, body: bytes, content_type: str, *, streams: bool = False) -> Answered:
        path, _ = routes(chosen.endpoint.name, chosen.deployed.id, chosen.model.container_spec)
        timeout_s = _timeout_s(chosen)
        fleet = self._fleets.find(chosen.endpoint.name, chosen.deployed.id)
        if fleet is None:
            raise google_errors.ServiceUnavailable(f"DeployedModel {chosen.deployed.id} has just been undeployed.")
        status = 503
        try:
            answered = fleet.stream("POST", path, {"content-type": content_type}, body, timeout_s)
            status = answered.status
            if status != 200 or not streams:
                answered = answered.whole()
        except httpx.TimeoutException as error:
            status = 504
            raise google_errors.DeadlineExceeded(f"The model did not answer within {timeout_s:g} s.") from error
        except httpx.TransportError as error:
            raise google_errors.ServiceUnavailable(f"The model server broke off: {error}") from error
        finally:
            self._monitoring.note(names.short(chosen.endpoint.name), chosen.deployed.id, status)
        if answered.pieces is not None:
            return begun(answered, chosen.limits.payload_bytes)
        require_within(len(answered.body), chosen.limits.payload_bytes)
        return answered

    def _count(self, most: int) -> None:
        minute = int(time.monotonic() // _MINUTE_S)
        with self._lock:
            self._counted = {minute: self._counted.get(minute, 0) + 1}
            if self._counted[minute] > most:
                raise google_errors.ResourceExhausted(
                    "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model."
                )


def _check_host(endpoint: Any, kind: EndpointKind, host: str) -> None:
    """A dedicated endpoint is answered under its own name only, every other one under the region's."""
    own = endpoint.dedicated_endpoint_dns
    if kind is EndpointKind.DEDICATED and host != own:
        raise google_errors.FailedPrecondition(
            f"Dedicated Endpoint {endpoint.name} is asked under its own name {own!r} only, not under {host!r}."
        )
    if kind is EndpointKind.SHARED and host.endswith(".prediction.vertexai.goog"):
        raise google_errors.NotFound(f"There is no dedicated endpoint {host!r}.")


def _timeout_s(chosen: Chosen) -> float:
    if chosen.limits.timeout_is_fixed:
        return chosen.limits.timeout_s
    own = v1.Endpoint.pb(chosen.endpoint).client_connection_config.inference_timeout.seconds
    return float(own or _DEFAULT_TIMEOUT_S)
