"""Amazon SageMaker: `docker run IMAGE serve`, port 8080, the model below /opt/ml/model.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelserve.runtime.server.contracts.contract import Contract
from modelserve.runtime.server.contracts.folders import model_settings, port

# SIGKILL comes 30 seconds after SIGTERM.
_DRAIN_S = 25.0
_MAX_PAYLOAD_MB = 100


def contract(environment: Mapping[str, str]) -> Contract:
    """The contract as this environment describes it."""
    base = Path(environment.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    return Contract(
        "sagemaker",
        {
            "host": "0.0.0.0",  # noqa: S104  # the container's only way out is the cloud's door
            "port": port(environment, "SAGEMAKER_BIND_TO_PORT", 8080),
            "drain_s": _DRAIN_S,
            **model_settings(base / "model"),
        },
        ready_paths=("/ping",),
        predict_paths=("/invocations",),
        request_id_header=b"x-amzn-sagemaker-inference-id",
        details={"execution_parameters": {"BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": _MAX_PAYLOAD_MB}},
    )
