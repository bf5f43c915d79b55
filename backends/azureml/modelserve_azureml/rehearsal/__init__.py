"""Azure on loopback: the unmodified adapter, Microsoft's own clients and Azure's real names, minus the bill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelserve.backend.rehearsal import needing_its_packages
from modelserve_azureml.options import AzureMLOptions

if TYPE_CHECKING:
    from modelserve_azureml.rehearsal.cloud import AzureRehearsal

__all__ = ["rehearsal"]


def rehearsal(options: AzureMLOptions) -> AzureRehearsal:
    """A stand-in for the workspace that these options name, running.

    Raises:
        MissingExtraError: its packages are not installed.
    """
    with needing_its_packages():
        from modelserve_azureml.rehearsal.cloud import AzureRehearsal
    return AzureRehearsal(options)
