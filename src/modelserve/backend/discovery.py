"""The backends that are installed, found by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelserve import plugins
from modelserve.backend.contract import CONTRACT_VERSION, Backend
from modelserve.errors import PluginError, UnknownBackendError


def load_backend(name: str) -> type[Backend]:
    """The class of the backend called `name`.

    Raises:
        UnknownBackendError: no installed package offers it.
        MissingExtraError: its SDK is not installed.
        PluginError: it was written for another version of the contract.
    """
    entry = plugins.find(plugins.BACKENDS, name)
    if entry is None:
        known = ", ".join(map(repr, plugins.names(plugins.BACKENDS))) or "none"
        raise UnknownBackendError(f"No backend {name!r} is installed; installed are {known}.")
    kind = plugins.load(entry)
    if not isinstance(kind, type) or not issubclass(kind, Backend):
        raise PluginError(f"{entry.value!r}, offered as backend {name!r}, is no modelserve.backend.Backend.")
    if kind.contract_version != CONTRACT_VERSION:
        raise PluginError(
            f"Backend {name!r} was written for contract {kind.contract_version}, this modelserve speaks "
            f"{CONTRACT_VERSION}. Install versions that belong together."
        )
    return kind


def open_backend(name: str, options: Mapping[str, Any]) -> Backend:
    """The backend called `name`, with these options."""
    return load_backend(name)(options)
