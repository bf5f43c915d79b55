"""management.azure.com: the resource manager, as far as this backend and Microsoft's own client ask it.

path ──► route ──► resource read, or a body checked as Azure checks it ──► a change, at once or as a long operation
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelserve.standin.loopback import Answered
from modelserve_azureml.names import PROVIDER, Workspace
from modelserve_azureml.rehearsal import sizes
from modelserve_azureml.rehearsal.blobs import ACCOUNT, HOST, Blobs
from modelserve_azureml.rehearsal.calls import Call, Refusal, said
from modelserve_azureml.rehearsal.fleets import Fleets
from modelserve_azureml.rehearsal.resources import OperationFailed, Operations, Resources
from modelserve_azureml.validation import Kind, problems

REGION = "westeurope"
CONTAINER = "azureml-blobstore"
REGISTRY = "modelserverehearsal"
_TOKEN_S = 3600

Handler = Callable[[Call, tuple[str, ...]], Answered]


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of call.

    Attributes:
        name: By which faults are planned for it.
    """

    name: str
    method: str
    pattern: re.Pattern[str]
    handler: Handler


class Manager:
    """Answers calls of the resource manager.

    Attributes:
        keys: Of each endpoint, by its name.
        taken: Endpoint names that somebody else in the region has.
        limit: Processors of each family that may be had.
        actions: What the caller may do.
        unregistered: Resource providers that are not registered.
    """

    def __init__(self, workspace: Workspace, instance_type: str, blobs: Blobs, fleets: Fleets) -> None:
        self.workspace = workspace
        self.resources = Resources()
        self.operations = Operations()
        self.keys: dict[str, dict[str, str]] = {}
        self.taken: set[str] = set()
        self.limit = sizes.DEFAULT_LIMIT
        self.actions = ["*"]
        self.unregistered: set[str] = set()
        self._sizes = sizes.sizes(instance_type)
        self._blobs = blobs
        self._fleets = fleets
        self._busy: set[str] = set()
        self._metrics: Callable[[str, str], dict[str, int]] = lambda _endpoint, _query: {}
        self.routes = self._all_routes()

    def measured_by(self, metrics: Callable[[str, str], dict[str, int]]) -> None:
        """Who counts requests: the scoring door."""
        self._metrics = metrics

    def find(self, call: Call) -> tuple[Route, tuple[str, ...]]:
        """Where a call leads, and the names in its path."""
        for route in self.routes:
            match = route.pattern.fullmatch(call.path)
            if match is not None and route.method == call.method:
                return route, match.groups()
        raise Refusal(404, "ResourceNotFound", f"There is no {call.method} {call.path} at this stand-in.")

    def answer(self, route: Route, call: Call, names: tuple[str, ...]) -> Answered:
        if not call.query.get("api-version"):
            raise Refusal(
                400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is needed."
            )
        return route.handler(call, names)

    def leftovers(self) -> list[str]:
        return self.resources.paths()

    def _all_routes(self) -> list[Route]:
        workspace, name = re.escape(self.workspace.path), "([^/]+)"
        location = f"/subscriptions/{name}/providers/{re.escape(PROVIDER)}/locations/{name}"
        scale = f"{re.escape(self.workspace.group)}/providers/Microsoft.Insights/autoscalesettings/{name}"
        endpoint, deployment = f"/onlineEndpoints/{name}", f"/onlineEndpoints/{name}/deployments/{name}"
        asset = f"/(models|environments)/{name}"
        table: list[tuple[str, str, str, Handler]] = [
            ("Operations.Get", "GET", f"{location}/mfeOperationsStatus/{name}", self._operation),
            ("Providers.Get", "GET", f"/subscriptions/{name}/providers/{name}", self._provider),
            ("Sizes.List", "GET", f"{location}/vmSizes", self._vm_sizes),
            ("Usages.List", "GET", f"{location}/usages", self._usages),
            ("Workspace.Get", "GET", workspace, self._workspace),
            (
                "Permissions.List",
                "GET",
                f"{workspace}/providers/Microsoft.Authorization/permissions",
                self._permissions,
            ),
            ("Datastores.Get", "GET", f"{workspace}/datastores/{name}", self._datastore),
            ("Datastores.ListSecrets", "POST", f"{workspace}/datastores/{name}/listSecrets", self._secrets),
            ("Assets.Get", "GET", f"{workspace}{asset}", self._asset_container),
            ("Assets.ListVersions", "GET", f"{workspace}{asset}/versions", self._asset_versions),
            ("Assets.GetVersion", "GET", f"{workspace}{asset}/versions/{name}", self._get),
            ("Assets.Put", "PUT", f"{workspace}{asset}/versions/{name}", self._put_asset),
            ("Assets.Delete", "DELETE", f"{workspace}{asset}/versions/{name}", self._delete_asset),
            ("Assets.Upload", "POST", f"{workspace}{asset}/versions/{name}/startPendingUpload", self._upload),
            ("Endpoints.List", "GET", f"{workspace}/onlineEndpoints", self._list),
            ("Endpoints.Get", "GET", f"{workspace}{endpoint}", self._get),
            ("Endpoints.Put", "PUT", f"{workspace}{endpoint}", self._put_endpoint),
            ("Endpoints.Delete", "DELETE", f"{workspace}{endpoint}", self._delete_endpoint),
            ("Endpoints.ListKeys", "POST", f"{workspace}{endpoint}/listKeys", self._list_keys),
            ("Endpoints.RegenerateKeys", "POST", f"{workspace}{endpoint}/regenerateKeys", self._new_key),
            ("Endpoints.Token", "POST", f"{workspace}{endpoint}/token", self._token),
            ("Endpoints.Metrics", "GET", f"{workspace}{endpoint}/providers/Microsoft.Insights/metrics", self._measured),
            ("Deployments.List", "GET", f"{workspace}{endpoint}/deployments", self._list),
            ("Deployments.Get", "GET", f"{workspace}{deployment}", self._get),
            ("Deployments.Put", "PUT", f"{workspace}{deployment}", self._put_deployment),
            ("Deployments.Patch", "PATCH", f"{workspace}{deployment}", self._patch_deployment),
            ("Deployments.Delete", "DELETE", f"{workspace}{deployment}", self._delete_deployment),
            ("Deployments.Skus", "GET", f"{workspace}{deployment}/skus", self._skus),
            ("Deployments.GetLogs", "POST", f"{workspace}{deployment}/getLogs", self._logs),
            ("Autoscale.Get", "GET", scale, self._get),
            ("Autoscale.Put", "PUT", scale, self._put_autoscale),
            ("Autoscale.Delete", "DELETE", scale, self._delete_plain),
        ]
        return [Route(what, method, re.compile(path, re.IGNORECASE), to) for what, method, path, to in table]

    # What is only read

    def _operation(self, call: Call, names: tuple[str, ...]) -> Answered:
        return self.operations.look(names[2])

    def _provider(self, call: Call, names: tuple[str, ...]) -> Answered:
        state = "NotRegistered" if names[1] in self.unregistered else "Registered"
        return said({"namespace": names[1], "registrationState": state})

    def _vm_sizes(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said({"value": self._sizes})

    def _usages(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said({"value": sizes.usages(self._sizes, self._used(), self.limit)})

    def _workspace(self, call: Call, names: tuple[str, ...]) -> Answered:
        registry = f"{self.workspace.group}/providers/Microsoft.ContainerRegistry/registries/{REGISTRY}"
        properties = {
            "friendlyName": self.workspace.name,
            "workspaceId": "00000000-0000-0000-0000-00000000a31d",
            "containerRegistry": registry,
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
            "discoveryUrl": f"https://{REGION}.api.azureml.ms/discovery",
        }
        identity = {"type": "SystemAssigned", "principalId": "p", "tenantId": "t"}
        content = {"id": self.workspace.path, "name": self.workspace.name, "location": REGION, "kind": "Default"}
        return said({**content, "type": f"{PROVIDER}/workspaces", "identity": identity, "properties": properties})

    def _permissions(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said({"value": [{"actions": self.actions, "notActions": [], "dataActions": [], "notDataActions": []}]})

    def _datastore(self, call: Call, names: tuple[str, ...]) -> Answered:
        properties = {
            "datastoreType": "AzureBlob",
            "isDefault": True,
            "accountName": ACCOUNT,
            "containerName": CONTAINER,
            "endpoint": "core.windows.net",
            "protocol": "https",
            "credentials": {"credentialsType": "AccountKey"},
            "serviceDataAccessAuthIdentity": "None",
        }
        return said({"id": call.path, "name": names[0], "properties": properties})

    def _secrets(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said({"secretsType": "Sas", "sasToken": self._blobs.sign()})

    def _get(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said(self.resources.need(call.path))

    def _list(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said({"value": self.resources.below(call.path)})

    def _skus(self, call: Call, names: tuple[str, ...]) -> Answered:
        self.resources.need(call.path.removesuffix("/skus"))
        capacity = {"minimum": 1, "maximum": 50, "default": 1, "scaleType": "Manual"}
        return said({"value": [{"resourceType": "x", "sku": {"name": "Default"}, "capacity": capacity}]})

    def _measured(self, call: Call, names: tuple[str, ...]) -> Answered:
        now = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime())
        series = [
            {
                "metadatavalues": [{"name": {"value": "statuscode"}, "value": status}],
                "data": [{"timeStamp": now, "total": count}],
            }
            for status, count in self._metrics(names[0], call.query.get("$filter", "")).items()
        ]
        return said({"value": [{"name": {"value": call.query.get("metricnames", "")}, "timeseries": series}]})

    # Models and environments

    def _asset_container(self, call: Call, names: tuple[str, ...]) -> Answered:
        found = self.resources.below(f"{call.path}/versions")
        if not found:
            raise Refusal(404, "UserError", f"{names[0]} container {names[1]} was not found.")
        properties = {"latestVersion": found[-1]["name"], "nextVersion": str(len(found) + 1), "isArchived": False}
        return said({"id": call.path, "name": names[1], "properties": properties})

    def _asset_versions(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said({"value": self.resources.below(call.path)})

    def _put_asset(self, call: Call, names: tuple[str, ...]) -> Answered:
        kind = Kind.MODEL if names[0].lower() == "models" else Kind.ENVIRONMENT
        _refuse(problems(kind, names[1], call.json))
        old = self.resources.get(call.path)
        content = call.json["properties"]
        for fixed in ("modelUri", "image"):
            if old is not None and content.get(fixed) != old["properties"].get(fixed):
                raise Refusal(409, "UserError", f"{names[1]}:{names[2]} exists already with another {fixed}.")
        # Microsoft's client reads these without asking whether they are there.
        defaults = {"isArchived": False, "flavors": {}} if kind is Kind.MODEL else {"isArchived": False}
        stored = {**defaults, **content, "provisioningState": "Succeeded"}
        return said(self.resources.put(call.path, {"properties": stored}), 200 if old else 201)

    def _delete_asset(self, call: Call, names: tuple[str, ...]) -> Answered:
        found = self.resources.get(call.path)
        if found is None:
            return Answered(204)
        uri = found["properties"].get("modelUri", "")
        if uri.startswith(f"https://{HOST}/"):
            self._blobs.remove(uri.removeprefix(f"https://{HOST}/"))
        self.resources.remove(call.path)
        return Answered(200)

    def _upload(self, call: Call, names: tuple[str, ...]) -> Answered:
        uri = f"https://{HOST}/{secrets.token_hex(8)}"
        credential = {"credentialType": "SAS", "sasUri": f"{uri}?{self._blobs.sign()}"}
        reference = {"blobUri": uri, "storageAccountArmId": "/x", "credential": credential}
        kind = "TemporaryBlobReference"
        return said(
            {
                "pendingUploadId": secrets.token_hex(8),
                "pendingUploadType": kind,
                "blobReferenceForConsumption": reference,
            }
        )

    # Endpoints

    def _put_endpoint(self, call: Call, names: tuple[str, ...]) -> Answered:
        body, name = call.json, names[0]
        _refuse(problems(Kind.ENDPOINT, name, body))
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

    # Deployments

    def _put_deployment(self, call: Call, names: tuple[str, ...]) -> Answered:
        endpoint = call.path.partition("/deployments/")[0]
        self.resources.need(endpoint)
        body = call.json
        _refuse(problems(Kind.DEPLOYMENT, names[1], body))
        properties = body["properties"]
        environment = self.resources.need(properties["environmentId"])
        if not environment["properties"].get("inferenceConfig") and not properties.get("codeConfiguration"):
            raise Refusal(400, "MissingDriverProgram", "No driver program specified.")
        if properties.get("model"):
            self.resources.need(properties["model"])
        old = self.resources.get(call.path)
        self._refuse_unknown_size(properties["instanceType"])
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
        _refuse(problems(Kind.DEPLOYMENT, names[1], _body(content)))
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

    # Azure Monitor

    def _put_autoscale(self, call: Call, names: tuple[str, ...]) -> Answered:
        properties = call.json.get("properties") or {}
        self.resources.need(properties.get("targetResourceUri", ""))
        for profile in properties.get("profiles") or []:
            _refuse(_scale_problems(profile))
        return said(self.resources.put(call.path, call.json), 200)

    def _delete_plain(self, call: Call, names: tuple[str, ...]) -> Answered:
        is_there = self.resources.get(call.path) is not None
        self.resources.remove(call.path)
        return Answered(200 if is_there else 204)

    # What all changes share

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
        machine = self._size(content["properties"]["instanceType"])
        used = self._used(but=path).get(machine["family"], 0)
        needed = -(-content["sku"]["capacity"] * 12 // 10) * machine["vCPUs"]
        if used + needed > self.limit:
            raise OperationFailed(
                "OutOfQuota",
                f"Not enough quota available for {machine['name']} in {REGION}. "
                f"Current usage/limit: {used}/{self.limit}. Additional needed: {needed}.",
            )
        environment = self.resources.need(content["properties"]["environmentId"])["properties"]
        model = content["properties"].get("model")
        uri = self.resources.need(model)["properties"]["modelUri"] if model else ""
        self._fleets.run(path, content, environment, uri)

    def _used(self, but: str = "") -> dict[str, int]:
        """Processors by family, the service's reserve included."""
        used: dict[str, int] = {}
        for path in self.resources.paths():
            content = self.resources.get(path)
            if content is None or "instanceType" not in content["properties"] or path.lower() == but.lower():
                continue
            machine = self._size(content["properties"]["instanceType"])
            processors = -(-content["sku"]["capacity"] * 12 // 10) * machine["vCPUs"]
            used[machine["family"]] = used.get(machine["family"], 0) + processors
        return used

    def _size(self, name: str) -> Mapping[str, Any]:
        return next(size for size in self._sizes if size["name"].lower() == name.lower())

    def _refuse_unknown_size(self, name: str) -> None:
        if not any(size["name"].lower() == name.lower() for size in self._sizes):
            raise Refusal(400, "BadArgument", f"The VM size {name} is not supported for online endpoints in {REGION}.")


def _refuse(found: list[str]) -> None:
    if found:
        raise Refusal(400, "BadArgument", "; ".join(found))


def _body(content: Mapping[str, Any]) -> dict[str, Any]:
    """A resource as it would be sent."""
    kept = {key: value for key, value in content.items() if key in {"location", "sku", "tags", "properties"}}
    kept["properties"] = {key: value for key, value in kept["properties"].items() if key != "provisioningState"}
    return kept


def _scale_problems(profile: Mapping[str, Any]) -> list[str]:
    capacity = profile.get("capacity") or {}
    if any(not isinstance(capacity.get(name), str) for name in ("minimum", "maximum", "default")):
        return ["capacity needs minimum, maximum and default, as text"]
    low, default, high = (int(capacity[name]) for name in ("minimum", "default", "maximum"))
    found = [] if 1 <= low <= default <= high <= 50 else [f"capacity {low} <= {default} <= {high} makes no sense"]
    directions = {rule["scaleAction"]["direction"] for rule in profile.get("rules") or []}
    return found + ([] if directions <= {"Increase", "Decrease"} else [f"direction is one of {sorted(directions)}"])
