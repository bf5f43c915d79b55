"""The HTTP backend: models of a server that runs already, ours or another's of the Open Inference Protocol.

attach("https://host:8000")                    the only model there
attach("https://host:8000/v2/models/digits")   that one
target with url= and folder=                   serve, update and delete too, through the server's folder of models
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from modelserve.backend import (
    Backend,
    Capability,
    DeploymentSpec,
    Endpoint,
    EndpointStatus,
    Servable,
    State,
    Support,
    read_options,
)
from modelserve.errors import ConfigError, DeploymentNotFoundError, NotSupportedError
from modelserve_http.endpoint import HttpEndpoint
from modelserve_http.folder import Folder
from modelserve_http.options import HttpOptions
from modelserve_http.wire import Wire

_MODELS = "/v2/models/"


class HttpBackend(Backend):
    """Models behind an address."""

    name = "http"
    support: ClassVar[Mapping[Capability, Support]] = {
        Capability.SCALE: Support.FULL,
        Capability.SCALE_TO_ZERO: Support.FULL,
        Capability.AUTOSCALE: Support.FULL,
        Capability.UPDATE: Support.FULL,
        Capability.ATTACH: Support.FULL,
        Capability.LOGS: Support.FULL,
        Capability.LIVE_CALLABLE: Support.IMPOSSIBLE,  # code from the network is never run
        Capability.BATCH: Support.NOT_IMPLEMENTED,
        Capability.REHEARSAL: Support.IMPOSSIBLE,  # a server on this machine is the real thing
    }
    options: ClassVar[Mapping[str, str]] = HttpOptions.described()

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = read_options(HttpOptions, self.name, options)

    def deploy(
        self, servable: Servable, spec: DeploymentSpec, *, on_progress: Callable[[str], None] | None = None
    ) -> Endpoint:
        folder = _folder(self._options)
        if on_progress is not None:
            on_progress(f"Putting {spec.name} into the server's folder")
        folder.put(spec.name, servable, spec.timeout_s)
        endpoint = self._endpoint(spec.name, self._options, folder)
        if spec.scale is not None:
            endpoint.scale(spec.scale)
        return endpoint

    def attach(self, name: str) -> Endpoint:
        options = self._options
        if name.startswith(("http://", "https://")):
            address, name = _divided(name)
            options = options.model_copy(update={"url": address})
        _check_url(options.url)
        name = name or _only_model(options)
        return self._endpoint(name, options, None if options.folder is None else _folder(options))

    def list(self) -> list[EndpointStatus]:
        _check_url(self._options.url)
        ready = (entry for entry in _index(self._options) if entry.get("state") == "READY")
        return [EndpointStatus(entry["name"], self.name, State.READY, "", None) for entry in ready]

    def _endpoint(self, name: str, options: HttpOptions, folder: Folder | None) -> HttpEndpoint:
        if folder is None:
            return HttpEndpoint(name, options)
        return HttpEndpoint(name, options, put=folder.put, remove=folder.remove)


def _folder(options: HttpOptions) -> Folder:
    _check_url(options.url)
    if options.folder is None:
        raise NotSupportedError(
            "Serving a new model at a server needs its folder of models. Give the option folder=, where this "
            "program can write to it; or put the bundle there, and attach to it."
        )
    return Folder(options.folder, options)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"The option url must be a server's address, such as 'http://localhost:8000'; got {url!r}.")


def _divided(address: str) -> tuple[str, str]:
    """The server's address, and the model's name where the address goes that far."""
    before, found, rest = address.partition(_MODELS)
    return (before if found else address).rstrip("/"), unquote(rest.partition("/")[0])


def _index(options: HttpOptions) -> list[dict[str, Any]]:
    wire = Wire(options)
    try:
        return list(wire.call("POST", "/v2/repository/index", json={}).json())
    finally:
        wire.close()


def _only_model(options: HttpOptions) -> str:
    names = sorted({str(entry["name"]) for entry in _index(options) if entry.get("state") in {"READY", None}})
    if len(names) != 1:
        raise DeploymentNotFoundError(
            f"{options.url} has {len(names)} models that are ready ({', '.join(names) or 'none'}). "
            f"Name one: attach({options.url + _MODELS + 'NAME'!r})."
        )
    return names[0]
