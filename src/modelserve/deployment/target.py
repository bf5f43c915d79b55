"""From a target's name to the backend that it means.

"prod" ──config──► Target(backend, options, scale) ──plugins──► Backend(options)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelserve import plugins
from modelserve.backend import Backend, Capability, Scale, Support, load_backend
from modelserve.config import Config, Target, load_config
from modelserve.deployment.deployment import Deployment, require
from modelserve.errors import InputError, InvalidScaleError


@dataclass(frozen=True, slots=True)
class OpenTarget:
    """A target, opened."""

    target: Target
    backend: Backend

    @property
    def scale(self) -> Scale | None:
        """The replicas that the configuration asks for."""
        return as_scale(self.target.scale)


def open_target(
    target: str | None = None,
    *,
    code: Mapping[str, Any] | None = None,
    command_line: Mapping[str, Any] | None = None,
    config: Config | None = None,
) -> OpenTarget:
    """The backend that `target` means, with its options; contacts nothing.

    Args:
        code: What the caller said for this call, over everything configured.
        config: By default what is configured for the working directory.

    Raises:
        UnknownTargetError: no such target or backend.
        ConfigError: an option is unknown to the backend or makes no sense.
        PluginError: the backend is not installed, or its packages are not.
    """
    if target is not None and not isinstance(target, str):
        raise InputError(f"target= takes a target's name, got {type(target).__name__} {target!r}.")
    found = (config or load_config()).target(
        target, backends=plugins.names(plugins.BACKENDS), code=code, command_line=command_line
    )
    kind = load_backend(found.backend)
    return OpenTarget(found, kind(found.options()))


def as_scale(value: Scale | int | Mapping[str, Any] | None) -> Scale | None:
    """A `Scale` from the ways in which people write one.

    Raises:
        InvalidScaleError: it makes no sense.
    """
    if value is None or isinstance(value, Scale):
        return value
    if not isinstance(value, Mapping):
        return Scale.fixed(value)
    try:
        return Scale(**{"minimum": 1, **value})
    except TypeError as error:
        raise InvalidScaleError(
            f"scale = {dict(value)!r} is not understood ({error}). Give minimum and maximum."
        ) from None


def attach(name_or_url: str, target: str | None = None, **options: Any) -> Deployment:
    """A deployment that was made earlier, or by another program.

    Args:
        name_or_url: Its name at `target`, or the address of a server.
        target: By default the default target; for an address, the backend that speaks HTTP.
        options: The backend's own options, over what the configuration says.

    Raises:
        DeploymentNotFoundError: there is none of that name.
        NotSupportedError: deployments there end with the program that made them.
        UnknownTargetError: no such target.
    """
    if not isinstance(name_or_url, str) or not name_or_url:
        raise InputError(f"attach takes a deployment's name or address, got {name_or_url!r}.")
    return attach_at(open_target(target or implied_target(name_or_url), code=options), name_or_url)


def attach_at(opened: OpenTarget, name_or_url: str) -> Deployment:
    """As `attach`, at a target that was opened before."""
    backend = opened.backend
    if backend.supports(Capability.ATTACH) is Support.NOT_IMPLEMENTED:
        require(backend, Capability.ATTACH)
    # Where it is impossible, the place itself says why.
    return Deployment(backend.attach(name_or_url), backend)


def implied_target(name_or_url: str) -> str | None:
    """The target of an address, where none is named; None for a name."""
    return "http" if name_or_url.startswith(("http://", "https://")) else None
