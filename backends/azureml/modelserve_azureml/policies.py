"""The least permissions: for whoever deploys, and for the endpoint's own identity."""

from __future__ import annotations

from typing import Any

from modelserve_azureml.names import PROVIDER, Workspace
from modelserve_azureml.options import AzureMLOptions

_ML = f"{PROVIDER}/workspaces"
#: What is tried in the workspace by a deploy, an update, a scale and a delete.
NEEDED_ACTIONS = (
    f"{_ML}/read",
    f"{_ML}/onlineEndpoints/read",
    f"{_ML}/onlineEndpoints/write",
    f"{_ML}/onlineEndpoints/delete",
    f"{_ML}/onlineEndpoints/listKeys/action",
    f"{_ML}/onlineEndpoints/deployments/read",
    f"{_ML}/onlineEndpoints/deployments/write",
    f"{_ML}/onlineEndpoints/deployments/delete",
    f"{_ML}/models/versions/read",
    f"{_ML}/models/versions/write",
    f"{_ML}/models/versions/delete",
    f"{_ML}/environments/versions/read",
    f"{_ML}/environments/versions/write",
    f"{_ML}/environments/versions/delete",
)
#: What a batch job needs beside them.
NEEDED_BATCH_ACTIONS = (
    f"{_ML}/batchEndpoints/read",
    f"{_ML}/batchEndpoints/write",
    f"{_ML}/batchEndpoints/delete",
    f"{_ML}/batchEndpoints/deployments/write",
    f"{_ML}/batchEndpoints/jobs/write",
    f"{_ML}/codes/versions/write",
    f"{_ML}/codes/versions/delete",
    f"{_ML}/computes/read",
    f"{_ML}/computes/write",
    f"{_ML}/computes/delete",
    f"{_ML}/datastores/read",
    f"{_ML}/datastores/listsecrets/action",
    f"{_ML}/jobs/read",
    f"{_ML}/jobs/cancel/action",
)
_FURTHER_ACTIONS = (
    f"{_ML}/onlineEndpoints/*",
    f"{_ML}/models/*",
    f"{_ML}/environments/*",
    f"{_ML}/batchEndpoints/*",
    f"{_ML}/codes/*",
    f"{_ML}/computes/*",
    f"{_ML}/datastores/read",
    f"{_ML}/datastores/listsecrets/action",
    f"{_ML}/jobs/*",
    f"{PROVIDER}/locations/*/read",
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Insights/metrics/read",
)
_AUTOSCALE_ACTIONS = (
    "Microsoft.Insights/autoscalesettings/read",
    "Microsoft.Insights/autoscalesettings/write",
    "Microsoft.Insights/autoscalesettings/delete",
)
_PREDICT_ACTIONS = (f"{_ML}/onlineEndpoints/read", f"{_ML}/onlineEndpoints/score/action")


def policy(workspace: Workspace, options: AzureMLOptions) -> dict[str, Any]:
    """Role definitions for `az role definition create`, and what is assigned to the endpoint's identity."""
    registry = options.registry or "the workspace's registry"
    return {
        "deployer": _role(
            "modelserve deployer",
            "Deploys, updates, scales and deletes models with modelserve.",
            sorted({f"{_ML}/read", *_FURTHER_ACTIONS, *_AUTOSCALE_ACTIONS}),
            [workspace.group],
        ),
        "deployer on the registry": {"role": "AcrPush", "scope": registry},
        "caller": _role(
            "modelserve caller",
            "Asks models that were deployed with modelserve; needed with auth = 'aad_token' only.",
            sorted(_PREDICT_ACTIONS),
            [workspace.group],
        ),
        "endpoint's identity": _identity(workspace, options, registry),
    }


def _role(name: str, description: str, actions: list[str], scopes: list[str]) -> dict[str, Any]:
    return {
        "Name": name,
        "IsCustom": True,
        "Description": description,
        "Actions": actions,
        "NotActions": [],
        "DataActions": [],
        "NotDataActions": [],
        "AssignableScopes": scopes,
    }


def _identity(workspace: Workspace, options: AzureMLOptions, registry: str) -> dict[str, Any]:
    if not options.identity:
        return {
            "identity": "one of the endpoint's own",
            "roles": "given by Azure when the endpoint is created; on another registry than the workspace's: AcrPull",
        }
    return {
        "identity": options.identity,
        "roles": [
            {"role": "AcrPull", "scope": registry},
            {"role": "Storage Blob Data Reader", "scope": f"the storage account of workspace {workspace.name}"},
        ],
    }
