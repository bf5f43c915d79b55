"""Models, environments and code: versions that never change, and where their files are uploaded to."""

from __future__ import annotations

import re
import secrets

from modelserve.standin.loopback import Answered
from modelserve_azureml.names import Workspace
from modelserve_azureml.rehearsal.blobs import HOST, Blobs
from modelserve_azureml.rehearsal.calls import Call, Refusal, said
from modelserve_azureml.rehearsal.resources import Resources
from modelserve_azureml.rehearsal.routing import NAME, Route, refuse, route
from modelserve_azureml.validation import Kind, problems

_KINDS = {"models": Kind.MODEL, "environments": Kind.ENVIRONMENT, "codes": Kind.CODE}


class Registered:
    """What was registered in the workspace."""

    def __init__(self, workspace: Workspace, resources: Resources, blobs: Blobs) -> None:
        self._path = workspace.path
        self.resources = resources
        self._blobs = blobs

    def routes(self) -> list[Route]:
        asset = f"{re.escape(self._path)}/(models|environments|codes)/{NAME}"
        version = f"{asset}/versions/{NAME}"
        return [
            route("Assets.List", "GET", f"{re.escape(self._path)}/(models|environments|codes)", self._asset_containers),
            route("Assets.Get", "GET", asset, self._asset_container),
            route("Assets.ListVersions", "GET", f"{asset}/versions", self._asset_versions),
            route("Assets.GetVersion", "GET", version, self._version),
            route("Assets.Put", "PUT", version, self._put_asset),
            route("Assets.Delete", "DELETE", version, self._delete_asset),
            route("Assets.Upload", "POST", f"{version}/startPendingUpload", self._upload),
        ]

    def _version(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said(self.resources.need(call.path))

    def _asset_containers(self, call: Call, names: tuple[str, ...]) -> Answered:
        start = f"{call.path}/".lower()
        found = {
            path[len(start) :].partition("/")[0] for path in self.resources.paths() if path.lower().startswith(start)
        }
        return said(
            {"value": [{"id": f"{call.path}/{name}", "name": name, "properties": {}} for name in sorted(found)]}
        )

    def _asset_container(self, call: Call, names: tuple[str, ...]) -> Answered:
        found = self.resources.below(f"{call.path}/versions")
        if not found:
            raise Refusal(404, "UserError", f"{names[0]} container {names[1]} was not found.")
        properties = {"latestVersion": found[-1]["name"], "nextVersion": str(len(found) + 1), "isArchived": False}
        return said({"id": call.path, "name": names[1], "properties": properties})

    def _asset_versions(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said({"value": self.resources.below(call.path)})

    def _put_asset(self, call: Call, names: tuple[str, ...]) -> Answered:
        kind = _KINDS[names[0].lower()]
        refuse(problems(kind, names[1], call.json))
        old = self.resources.get(call.path)
        content = call.json["properties"]
        for fixed in ("modelUri", "image", "condaFile", "codeUri"):
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
        uri = found["properties"].get("modelUri") or found["properties"].get("codeUri") or ""
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
