"""Azure on loopback: the unmodified adapter, Microsoft's own clients and Azure's real names, minus the bill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelserve.errors import MissingExtraError
from modelserve_azureml.options import AzureMLOptions

if TYPE_CHECKING:
    from modelserve_azureml.rehearsal.cloud import AzureRehearsal


def rehearsal(options: AzureMLOptions) -> AzureRehearsal:
    """A stand-in for the workspace that these options name, running.

    Raises:
        MissingExtraError: its packages are not installed.
    """
    try:
        from modelserve_azureml.rehearsal.cloud import AzureRehearsal
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'A rehearsal of Azure needs {error.name}. Install it with: pip install "modelserve[azureml,rehearsal]"'
        ) from error
    return AzureRehearsal(options)


__all__ = ["rehearsal"]
