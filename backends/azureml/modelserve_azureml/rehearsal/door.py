"""<endpoint>.<region>.inference.ml.azure.com: the door that requests come through.

    key ──► which deployment: the header's, or by traffic ──► room? ──► container ──► 200, or 424 with what it said
                                                       └── mirror: a copy whose answer nobody sees

The answer names the deployment that gave it.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx

from modelserve.standin.fleet import Fleet
from modelserve.standin.loopback import Answered
from modelserve_azureml.limits import ADMITTED_PER_SLOT
from modelserve_azureml.rehearsal.calls import Call, Refusal
from modelserve_azureml.rehearsal.fleets import Fleets
from modelserve_azureml.rehearsal.manager import Manager
from modelserve_azureml.rehearsal.sign_in import SignIn
from modelserve_azureml.validation import seconds

_DEFAULT_TIMEOUT = "PT5S"
_PASSED = ("content-type", "accept", "x-ms-client-request-id")
_FILTER = re.compile(r"deployment eq '([^']*)'")


class Door:
    """Answers scoring requests.

    Attributes:
        mirrored: Copies that were sent, by deployment.
        is_private: Whether callers come through the workspace's private endpoint.
    """

    def __init__(self, manager: Manager, fleets: Fleets, sign_in: SignIn) -> None:
        self._manager = manager
        self._fleets = fleets
        self._sign_in = sign_in
        self._lock = threading.Lock()
        self._inside: Counter[str] = Counter()
        # Answers by endpoint, deployment, status and minute, as Azure Monitor keeps them.
        self._counts: Counter[tuple[str, str, str, int]] = Counter()
        self.mirrored: Counter[str] = Counter()
        self.is_private = False
        manager.endpoints.measured_by(self.measured)

    def answer(self, call: Call) -> Answered:
        name = call.host.partition(".")[0]
        endpoint = self._endpoint(name)
        properties = endpoint["properties"]
        if properties.get("publicNetworkAccess") == "Disabled" and not self.is_private:
            raise Refusal(403, "Forbidden", "Public network access is disabled for this endpoint.")
        self._check_key(call, endpoint)
        chosen = call.headers.get("azureml-model-deployment", "")
        deployment = self._deployment(endpoint, chosen or _by_traffic(properties.get("traffic") or {}))
        if not chosen:
            self._mirror(endpoint, properties.get("mirrorTraffic") or {}, call)
        answered = self._through(endpoint, deployment, call)
        self.count(endpoint["name"], deployment["name"], answered.status)
        return Answered(
            answered.status, answered.body, {**answered.headers, "azureml-model-deployment": deployment["name"]}
        )

    def measured(self, endpoint: str, query: str, since: int) -> dict[str, int]:
        """What Azure Monitor would count of a deployment's requests since a minute, by status."""
        match = _FILTER.search(query)
        found: Counter[str] = Counter()
        with self._lock:
            for (name, deployment, status, minute), count in self._counts.items():
                if name == endpoint and minute >= since and (match is None or deployment == match[1]):
                    found[status] += count
        return found

    def answered(self, endpoint: str) -> int:
        """How many requests of an endpoint were answered so far, whatever the answer."""
        with self._lock:
            return sum(count for (name, *_), count in self._counts.items() if name == endpoint)

    def count(self, endpoint: str, deployment: str, status: int, times: int = 1) -> None:
        """Note answers of a deployment."""
        with self._lock:
            self._counts[endpoint, deployment, str(status), int(time.time() // 60)] += times

    def _endpoint(self, name: str) -> dict[str, Any]:
        found = self._manager.resources.get(self._manager.workspace.endpoint(name))
        if found is None:
            raise Refusal(404, "NotFound", f"There is no endpoint {name}.")
        return found

    def _check_key(self, call: Call, endpoint: Mapping[str, Any]) -> None:
        if endpoint["properties"]["authMode"] == "AADToken":
            self._sign_in.check(call, {"https://ml.azure.com"})
        elif call.bearer not in self._manager.endpoints.keys.get(endpoint["name"], {}).values():
            raise Refusal(401, "Unauthorized", "key_auth_access_denied")

    def _deployment(self, endpoint: Mapping[str, Any], name: str) -> dict[str, Any]:
        path = f"{endpoint['id']}/deployments/{name}"
        found = self._manager.resources.get(path) if name else None
        if found is None:
            raise Refusal(
                404, "NotFound", "No valid deployments to route to. Please check that the endpoint has traffic."
            )
        return found

    def _through(self, endpoint: Mapping[str, Any], deployment: Mapping[str, Any], call: Call) -> Answered:
        path = deployment["id"]
        fleet = self._fleets.find(path)
        if fleet is None:
            raise Refusal(404, "NotFound", f"Deployment {deployment['name']} does not run.")
        settings = deployment["properties"].get("requestSettings") or {}
        slots = settings.get("maxConcurrentRequestsPerInstance") or 1
        room = ADMITTED_PER_SLOT * slots * deployment["sku"]["capacity"]
        with self._lock:
            if self._inside[path] >= room:
                raise Refusal(429, "TooManyRequests", "Too many pending requests.", {"retry-after": "1"})
            self._inside[path] += 1
        try:
            return self._asked(fleet, deployment, call, settings.get("requestTimeout") or _DEFAULT_TIMEOUT)
        finally:
            with self._lock:
                self._inside[path] -= 1

    def _asked(self, fleet: Fleet, deployment: Mapping[str, Any], call: Call, timeout: str) -> Answered:
        environment = self._manager.resources.need(deployment["properties"]["environmentId"])
        route = environment["properties"]["inferenceConfig"]["scoringRoute"]["path"]
        headers = {name: call.headers[name] for name in _PASSED if name in call.headers}
        try:
            answered = fleet.forward("POST", route, headers, call.body, float(seconds(timeout) or 5))
        except httpx.TimeoutException:
            raise Refusal(408, "RequestTimeout", f"The request took longer than {timeout}.") from None
        except httpx.TransportError as error:
            raise Refusal(503, "NoHealthyUpstream", f"upstream connect error: {error}") from None
        kept = {"content-type": answered.headers.get("content-type", "application/json")}
        if answered.status == httpx.codes.OK:
            return Answered(200, answered.body, kept)
        return Answered(424, answered.body, {**kept, "ms-azureml-model-error-statuscode": str(answered.status)})

    def _mirror(self, endpoint: Mapping[str, Any], mirrored: Mapping[str, int], call: Call) -> None:
        for name, share in mirrored.items():
            if random.random() * 100 < share:  # noqa: S311  # a share of traffic, no secret
                deployment = self._deployment(endpoint, name)
                threading.Thread(target=self._copied, args=(endpoint, deployment, call), daemon=True).start()

    def _copied(self, endpoint: Mapping[str, Any], deployment: Mapping[str, Any], call: Call) -> None:
        with self._lock:
            self.mirrored[deployment["name"]] += 1
        try:
            answered = self._through(endpoint, deployment, call)
        except Refusal as refusal:
            answered = refusal.answer
        self.count(endpoint["name"], deployment["name"], answered.status)


def _by_traffic(traffic: Mapping[str, int]) -> str:
    live = {name: share for name, share in traffic.items() if share}
    return random.choices(list(live), list(live.values()))[0] if live else ""  # noqa: S311  # as above
