"""Google Vertex AI: everything by AIP_* variables; the container fetches the model itself.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
"""

from __future__ import annotations

from collections.abc import Mapping

from modelserve.runtime.server.contracts.contract import Contract
from modelserve.runtime.server.contracts.folders import port


def contract(environment: Mapping[str, str]) -> Contract:
    """The contract as this environment describes it."""
    return Contract(
        "vertex",
        {
            "host": "0.0.0.0",  # noqa: S104  # the container's only way out is the cloud's door
            "port": port(environment, "AIP_HTTP_PORT", 8080),
        },
        ready_paths=(environment.get("AIP_HEALTH_ROUTE") or "/ping",),
        predict_paths=(environment.get("AIP_PREDICT_ROUTE") or "/predict",),
        storage_uri=environment.get("AIP_STORAGE_URI", ""),
    )
