"""Online endpoints and their deployments: long operations, one at a time for each endpoint."""

from __future__ import annotations

import datetime as dt
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from modelserve.standin.loopback import Answered
from modelserve_azureml.names import PROVIDER, Workspace
from modelserve_azureml.rehearsal.account import REGION, Account
from modelserve_azureml.rehearsal.blobs import Blobs
from modelserve_azureml.rehearsal.calls import Call, Refusal, said
from modelserve_azureml.rehearsal.fleets import Fleets
from modelserve_azureml.rehearsal.resources import OperationFailed, Operations, Resources
from modelserve_azureml.rehearsal.routing import NAME, Route, refuse, route
from modelserve_azureml.validation import Kind, problems

_TOKEN_S = 3600


class Endpoints:
    """Endpoints, their deployments, and what Azure Monitor counts of them.

    Attributes:
        keys: Of each endpoint, by its name.
        taken: Endpoint names that somebody else in the region has.
    """

    def __init__(
        self, workspace: Workspace, instance_type: str, resources: Resources, blobs: Blobs, fleets: Fleets
    ) -> None:
        self.account = Account(workspace, instance_type, blobs, self.used)
        self.operations = Operations()
        self.resources = resources
        self.keys: dict[str, dict[str, str]] = {}
        self.taken: set[str] = set()
        self._path = workspace.path
        self._fleets = fleets
        self._busy: set[str] = set()
        self._metrics: Callable[[str, str, int], dict[str, int]] = lambda _endpoint, _query, _since: {}

    def routes(self) -> list[Route]:
        every = f"{re.escape(self._path)}/onlineEndpoints"
        endpoint, deployment = f"{every}/{NAME}", f"{every}/{NAME}/deployments/{NAME}"
        metrics = f"{endpoint}/providers/Microsoft.Insights/metrics"
        return [
            route("Endpoints.List", "GET", every, self._list),
            route("Endpoints.Get", "GET", endpoint, self._get),
            route("Endpoints.Put", "PUT", endpoint, self._put_endpoint),
            route("Endpoints.Delete", "DELETE", endpoint, self._delete_endpoint),
            route("Endpoints.ListKeys", "POST", f"{endpoint}/listKeys", self._list_keys),
            route("Endpoints.RegenerateKeys", "POST", f"{endpoint}/regenerateKeys", self._new_key),
            route("Endpoints.Token", "POST", f"{endpoint}/token", self._token),
            route("Endpoints.Metrics", "GET", metrics, self._measured),
            route("Deployments.List", "GET", f"{endpoint}/deployments", self._list),
            route("Deployments.Get", "GET", deployment, self._get),
            route("Deployments.Put", "PUT", deployment, self._put_deployment),
            route("Deployments.Patch", "PATCH", deployment, self._patch_deployment),
            route("Deployments.Delete", "DELETE", deployment, self._delete_deployment),
            route("Deployments.Skus", "GET", f"{deployment}/skus", self._skus),
            route("Deployments.GetLogs", "POST", f"{deployment}/getLogs", self._logs),
        ]

    def measured_by(self, metrics: Callable[[str, str, int], dict[str, int]]) -> None:
        """Who counts requests: the scoring door."""
        self._metrics = metrics

    def scale_to(self, path: str, capacity: int) -> bool:
        """Have Azure Monitor change the number of a deployment's instances; False where something else is under way."""
        content = self.resources.need(path)
        before = content["sku"]["capacity"]
        content["sku"]["capacity"] = capacity

        def run() -> None:
            try:
                self._run(path, content)
            except OperationFailed:
                # Without quota or machines it stays as it was.
                self.resources.put(path, {**content, "sku": {**content["sku"], "capacity": before}})

        try:
            self._change(path, 202, content, "Updating", run)
        except Refusal:
            return False
        return True

    def used(self, but: str = "") -> dict[str, int]:
        """Processors by family, the service's reserve included."""
        used: dict[str, int] = {}
        for path in self.resources.paths():
            content = self.resources.get(path)
            if content is None or "instanceType" not in content["properties"] or path.lower() == but.lower():
                continue
            machine = self.account.size(content["properties"]["instanceType"])
            processors = -(-content["sku"]["capacity"] * 12 // 10) * machine["vCPUs"]
            used[machine["family"]] = used.get(machine["family"], 0) + processors
        return used

    def _get(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said(self.resources.need(call.path))

    def _list(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said({"value": self.resources.below(call.path)})

    def _put_endpoint(self, call: Call, names: tuple[str, ...]) -> Answered:
        body, name = call.json, names[0]
        refuse(problems(Kind.ENDPOINT, name, body))
        if name.lower() in self.taken:
            raise Refusal(400, "UserError", f"An endpoint with name {name} already exists in region {REGION}.")
        properties = body["properties"]
        for deployment in {**(properties.get("traffic") or {}), **(properties.get("mirrorTraffic") or {})}:
            if self.resources.get(f"{call.path}/deployments/{deployment}") is None:
                raise Refusal(400, "BadArgument", f"Traffic names deployment {deployment}, which does not exist.")
        old = self.resources.get(call.path)
        uri = f"https://{name.lower()}.{REGION}.inference.ml.azure.com"
        told = {"traffic": {}, "mirrorTraffic": {}, **properties, "scoringUri": f"{uri}/score"}
        told["swaggerUri"] = f"{uri}/swagger.json"
        content = {**body, "properties": told, "kind": "Managed", "type": f"{PROVIDER}/workspaces/onlineEndpoints"}
        self.keys.setdefault(name, {each: secrets.token_urlsafe(32) for each in ("primaryKey", "secondaryKey")})
        status, during = (200, "Updating") if old else (201, "Creating")
        return self._change(call.path, status, content, during, lambda: None)

    def _delete_endpoint(self, call: Call, names: tuple[str, ...]) -> Answered:
        if self.resources.get(call.path) is None:
            return Answered(204)

        def gone() -> None:
            for deployment in self.resources.below(f"{call.path}/deployments"):
                self._fleets.stop(deployment["id"])
            self.resources.remove(call.path)
            self.keys.pop(names[0], None)

        return self._change(call.path, 202, None, "Deleting", gone)

    def _list_keys(self, call: Call, names: tuple[str, ...]) -> Answered:
        self.resources.need(call.path.rpartition("/")[0])
        return said({name: key for name, key in self.keys[names[0]].items() if name.endswith("Key")})

    def _new_key(self, call: Call, names: tuple[str, ...]) -> Answered:
        path = call.path.rpartition("/")[0]
        self.resources.need(path)
        which = f"{call.json.get('keyType', 'Primary').lower()}Key"
        value = call.json.get("keyValue") or secrets.token_urlsafe(32)
        return self._change(path, 202, None, "Updating", lambda: self.keys[names[0]].update({which: value}))

    def _token(self, call: Call, names: tuple[str, ...]) -> Answered:
        self.resources.need(call.path.rpartition("/")[0])
        token, now = f"aml.{secrets.token_urlsafe(32)}", int(time.time())
        self.keys[names[0]]["token"] = token
        refresh = {"expiryTimeUtc": now + _TOKEN_S, "refreshAfterTimeUtc": now + _TOKEN_S // 2}
        return said({"accessToken": token, "tokenType": "Bearer", **refresh})

    def _measured(self, call: Call, names: tuple[str, ...]) -> Answered:
        counted = self._metrics(names[0], call.query.get("$filter", ""), _minute(call.query.get("timespan", "")))
        now = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime())
        series = [
            {
                "metadatavalues": [{"name": {"value": "statuscode"}, "value": status}],
                "data": [{"timeStamp": now, "total": count}],
            }
            for status, count in counted.items()
        ]
        return said({"value": [{"name": {"value": call.query.get("metricnames", "")}, "timeseries": series}]})

    def _skus(self, call: Call, names: tuple[str, ...]) -> Answered:
        self.resources.need(call.path.removesuffix("/skus"))
        capacity = {"minimum": 1, "maximum": 50, "default": 1, "scaleType": "Manual"}
        return said({"value": [{"resourceType": "x", "sku": {"name": "Default"}, "capacity": capacity}]})

    def _put_deployment(self, call: Call, names: tuple[str, ...]) -> Answered:
        endpoint = call.path.partition("/deployments/")[0]
        self.resources.need(endpoint)
        body = call.json
        refuse(problems(Kind.DEPLOYMENT, names[1], body))
        properties = body["properties"]
        environment = self.resources.need(properties["environmentId"])
        if not environment["properties"].get("inferenceConfig") and not properties.get("codeConfiguration"):
            raise Refusal(400, "MissingDriverProgram", "No driver program specified.")
        if properties.get("model"):
            self.resources.need(properties["model"])
        old = self.resources.get(call.path)
        self.account.size(properties["instanceType"])
        filled = {"scaleSettings": {"scaleType": "Default"}, **properties}
        content = {**body, "properties": filled, "type": f"{PROVIDER}/workspaces/onlineEndpoints/deployments"}
        status, during = (200, "Updating") if old else (201, "Creating")
        return self._change(call.path, status, content, during, lambda: self._run(call.path, content))

    def _patch_deployment(self, call: Call, names: tuple[str, ...]) -> Answered:
        content = self.resources.need(call.path)
        if set(call.json) - {"sku", "tags"}:
            raise Refusal(400, "BadArgument", "A PATCH takes sku and tags only.")
        content["sku"] |= call.json.get("sku") or {}
        content["tags"] = call.json.get("tags", content.get("tags"))
        refuse(problems(Kind.DEPLOYMENT, names[1], _body(content)))
        return self._change(call.path, 202, content, "Updating", lambda: self._run(call.path, content))

    def _delete_deployment(self, call: Call, names: tuple[str, ...]) -> Answered:
        if self.resources.get(call.path) is None:
            return Answered(204)
        endpoint = self.resources.need(call.path.partition("/deployments/")[0])
        if endpoint["properties"]["traffic"].get(names[1]):
            raise Refusal(400, "BadArgument", f"Deployment {names[1]} still gets traffic. Set it to 0 first.")

        def gone() -> None:
            self._fleets.stop(call.path)
            self.resources.remove(call.path)

        return self._change(call.path, 202, None, "Deleting", gone)

    def _logs(self, call: Call, names: tuple[str, ...]) -> Answered:
        path = call.path.rpartition("/")[0]
        self.resources.need(path)
        lines = self._fleets.logs(path, call.json.get("containerType") or "InferenceServer")
        return said({"content": "\n".join(lines[-int(call.json.get("tail") or 500) :])})

    def _change(
        self, path: str, status: int, content: dict[str, Any] | None, during: str, work: Callable[[], None]
    ) -> Answered:
        """A long operation on a resource. Until its end nothing else may change at that endpoint."""
        endpoint = path.partition("/deployments/")[0].lower()
        with self.resources.lock:
            if endpoint in self._busy:
                text = "Cannot do this because the endpoint is in Updating provisioning state."
                raise Refusal(409, "Conflict", text, {"retry-after": "0.05"})
            self._busy.add(endpoint)
            if content is not None:
                content["properties"]["provisioningState"] = during
                self.resources.put(path, content)
            self.resources.mark(path, during)
            shown = self.resources.get(path)

        def run() -> None:
            try:
                work()
                self.resources.mark(path, "Succeeded")
            except BaseException:
                self.resources.mark(path, "Failed")
                raise
            finally:
                with self.resources.lock:
                    self._busy.discard(endpoint)

        return self.operations.start(status, shown if content is not None else None, run)

    def _run(self, path: str, content: dict[str, Any]) -> None:
        machine = self.account.size(content["properties"]["instanceType"])
        used = self.used(but=path).get(machine["family"], 0)
        needed = -(-content["sku"]["capacity"] * 12 // 10) * machine["vCPUs"]
        if used + needed > self.account.limit:
            raise OperationFailed(
                "OutOfQuota",
                f"Not enough quota available for {machine['name']} in {REGION}. "
                f"Current usage/limit: {used}/{self.account.limit}. Additional needed: {needed}.",
            )
        environment = self.resources.need(content["properties"]["environmentId"])["properties"]
        model = content["properties"].get("model")
        uri = self.resources.need(model)["properties"]["modelUri"] if model else ""
        self._fleets.run(path, content, environment, uri)


def _minute(timespan: str) -> int:
    """The minute in which a time span begins; 0 where none is given."""
    begin = timespan.partition("/")[0]
    return int(dt.datetime.fromisoformat(begin).timestamp() // 60) if begin else 0


def _body(content: Mapping[str, Any]) -> dict[str, Any]:
    """A resource as it would be sent."""
    kept = {key: value for key, value in content.items() if key in {"location", "sku", "tags", "properties"}}
    kept["properties"] = {key: value for key, value in kept["properties"].items() if key != "provisioningState"}
    return kept
