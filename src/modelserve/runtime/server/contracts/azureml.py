"""Azure Machine Learning, bring your own container: port and paths are ours to declare, the model is mounted.

https://learn.microsoft.com/azure/machine-learning/how-to-deploy-custom-container
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelserve.runtime.server.contracts.contract import Contract
from modelserve.runtime.server.contracts.folders import model_settings

_PORT = 5001


def contract(environment: Mapping[str, str]) -> Contract:
    """The contract as this environment describes it."""
    folder = environment.get("AZUREML_MODEL_DIR", "")
    return Contract(
        "azureml",
        {
            "host": "0.0.0.0",  # noqa: S104  # the container's only way out is the cloud's door
            "port": _PORT,
            **(model_settings(Path(folder)) if folder else {}),
        },
        ready_paths=("/ready",),
        live_paths=("/", "/live"),
        predict_paths=("/score",),
        request_id_header=b"x-ms-client-request-id",
    )
