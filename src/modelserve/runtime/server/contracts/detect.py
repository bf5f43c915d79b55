"""In which cloud's container do we run? Said outright by MODELSERVE_CONTRACT, or seen from what that cloud sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from modelserve.errors import ConfigError
from modelserve.runtime.server.contracts import azureml, sagemaker, vertex
from modelserve.runtime.server.contracts.contract import Contract

VARIABLE = "MODELSERVE_CONTRACT"
_CONTRACTS: dict[str, Callable[[Mapping[str, str]], Contract]] = {
    "sagemaker": sagemaker.contract,
    "vertex": vertex.contract,
    "azureml": azureml.contract,
}


def detect(environment: Mapping[str, str], arguments: Sequence[str] = ()) -> Contract | None:
    """The contract to keep; None outside of every cloud's container.

    Args:
        arguments: Of the process; SageMaker starts every container with the one argument "serve".

    Raises:
        ConfigError: MODELSERVE_CONTRACT names none.
    """
    named = environment.get(VARIABLE, "")
    if named == "none":
        return None
    if named:
        if named not in _CONTRACTS:
            raise ConfigError(f"{VARIABLE} is {named!r}; it must be one of {', '.join(_CONTRACTS)}, or none.")
        return _CONTRACTS[named](environment)
    if "AIP_HTTP_PORT" in environment:
        return vertex.contract(environment)
    if "AZUREML_MODEL_DIR" in environment:
        return azureml.contract(environment)
    if list(arguments) == ["serve"]:
        return sagemaker.contract(environment)
    return None
