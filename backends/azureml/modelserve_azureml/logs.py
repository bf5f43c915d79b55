"""What the containers of a deployment wrote."""

from __future__ import annotations

from modelserve_azureml.arm import Arm

#: What fetches the model and the image, and then our runtime.
CONTAINERS = ("StorageInitializer", "InferenceServer")
_LINES = 1000


def tail(arm: Arm, path: str, lines: int = _LINES) -> list[str]:
    """The last lines of both containers, the one that starts first before the other.

    Args:
        path: The address of the deployment.
    """
    found: list[str] = []
    for container in CONTAINERS:
        content = arm.ask("POST", f"{path}/getLogs", {"containerType": container, "tail": lines})
        found += (content.get("content") or "").splitlines()
    return found
