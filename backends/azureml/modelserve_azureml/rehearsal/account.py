"""What is there before anybody deploys: the subscription, its quota and roles, the workspace and its storage."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from modelserve.standin.loopback import Answered
from modelserve_azureml.names import PROVIDER, Workspace
from modelserve_azureml.rehearsal import sizes
from modelserve_azureml.rehearsal.blobs import ACCOUNT, Blobs
from modelserve_azureml.rehearsal.calls import Call, Refusal, said
from modelserve_azureml.rehearsal.routing import NAME, Route, route

REGION = "westeurope"
REGISTRY = "modelserverehearsal"
#: Of the default datastore.
CONTAINER = "azureml-blobstore"


class Account:
    """The subscription and the workspace.

    Args:
        used: Processors in use, by family.

    Attributes:
        limit: Processors of each family that may be had.
        actions: What the caller may do.
        unregistered: Resource providers that are not registered.
        is_keyless: Whether the datastore keeps no secrets.
    """

    def __init__(
        self, workspace: Workspace, instance_type: str, blobs: Blobs, used: Callable[[], dict[str, int]]
    ) -> None:
        self.workspace = workspace
        self.limit = sizes.DEFAULT_LIMIT
        self.actions = ["*"]
        self.unregistered: set[str] = set()
        self.is_keyless = False
        self._sizes = sizes.sizes(instance_type)
        self._blobs = blobs
        self._used = used

    def routes(self) -> list[Route]:
        workspace = re.escape(self.workspace.path)
        location = f"/subscriptions/{NAME}/providers/{re.escape(PROVIDER)}/locations/{NAME}"
        store = f"{workspace}/datastores/{NAME}"
        permissions = f"{workspace}/providers/Microsoft.Authorization/permissions"
        return [
            route("Providers.Get", "GET", f"/subscriptions/{NAME}/providers/{NAME}", self._provider),
            route("Sizes.List", "GET", f"{location}/vmSizes", self._vm_sizes),
            route("Usages.List", "GET", f"{location}/usages", self._usages),
            route("Workspace.Get", "GET", workspace, self._workspace),
            route("Permissions.List", "GET", permissions, self._permissions),
            route("Datastores.Get", "GET", store, self._datastore),
            route("Datastores.ListSecrets", "POST", f"{store}/listSecrets", self._secrets),
        ]

    def size(self, name: str) -> Mapping[str, Any]:
        """A machine by the name of its size; refused where there is none."""
        for size in self._sizes:
            if size["name"].lower() == name.lower():
                return size
        raise Refusal(400, "BadArgument", f"The VM size {name} is not supported for online endpoints in {REGION}.")

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
            "credentials": {"credentialsType": "None" if self.is_keyless else "AccountKey"},
            "serviceDataAccessAuthIdentity": "None",
        }
        return said({"id": call.path, "name": names[0], "properties": properties})

    def _secrets(self, call: Call, names: tuple[str, ...]) -> Answered:
        if self.is_keyless:
            raise Refusal(400, "UserError", "The datastore has no credentials.")
        return said({"secretsType": "Sas", "sasToken": self._blobs.sign()})
