"""Who we are to a registry, by the registry's own way.

A cloud's backend brings a function that gives one of these; it is asked again when what it gave is refused, since such
things expire within hours.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from modelserve.errors import ConfigError

_HELPER_S = 30.0
#: The user by which credential helpers say that the secret is a refresh token.
_TOKEN_USER = "<token>"  # noqa: S105  # a word of the helpers' protocol


@dataclass(frozen=True, slots=True)
class Password:
    """A user and a password: sent as they are, or exchanged for a token where the registry asks for that.

    Amazon ECR: "AWS" and the authorization token. Artifact Registry: "oauth2accesstoken" and an access token.
    """

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token that the registry takes as it is."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A token that the registry exchanges for one of each repository, as Azure Container Registry does."""

    token: str = field(repr=False)


Login: TypeAlias = Password | Bearer | RefreshToken


class Credentials(Protocol):
    """What a push or a pull asks for its login."""

    def __call__(self, registry: str, /) -> Login | None:
        """The login for a registry's host; None to come as nobody."""
        ...


@dataclass(frozen=True, slots=True)
class Through:
    """Credentials by a way of one's own: a proxy, an authority that nobody else believes.

    Attributes:
        way: Arguments of the HTTP client of whatever registry is asked, such as `proxy` and `verify`.
    """

    credentials: Credentials
    way: Mapping[str, Any] = field(repr=False)

    def __call__(self, registry: str, /) -> Login | None:
        return self.credentials(registry)


def anonymous(registry: str) -> Login | None:
    """Nobody in particular, as for public images."""
    return None


def configured(registry: str) -> Login | None:
    """As other tools were logged in: MODELSERVE_REGISTRY_USER and _PASSWORD, or Docker's and skopeo's files.

    Raises:
        ConfigError: a file or a helper that it names cannot be used.
    """
    user = os.environ.get("MODELSERVE_REGISTRY_USER")
    if user:
        return Password(user, os.environ.get("MODELSERVE_REGISTRY_PASSWORD", ""))
    for path in _files():
        login = _from_file(path, registry) if path.is_file() else None
        if login is not None:
            return login
    return None


def _files() -> list[Path]:
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    containers = Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".config") / "containers" / "auth.json"
    named = os.environ.get("REGISTRY_AUTH_FILE")
    return [*([Path(named)] if named else []), docker, containers]


def _from_file(path: Path, registry: str) -> Login | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [registry, f"https://{registry}"]
        names += ["https://index.docker.io/v1/", "docker.io"] if registry.endswith("docker.io") else []
        helpers: Mapping[str, str] = content.get("credHelpers") or {}
        helper = next((helpers[name] for name in names if name in helpers), content.get("credsStore"))
        entries: Mapping[str, Any] = content.get("auths") or {}
        entry = next((entries[name] for name in names if entries.get(name)), None)
        if entry is not None:
            return _from_entry(entry)
        return _from_helper(helper, registry) if helper else None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read as a registry login ({error}). Log in again.") from error


def _from_entry(entry: Mapping[str, Any]) -> Login | None:
    if entry.get("identitytoken"):
        return RefreshToken(entry["identitytoken"])
    user, found, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    return Password(user, password) if found else None


def _from_helper(helper: str, registry: str) -> Login | None:
    """Ask `docker-credential-HELPER get`; it fails where it knows no login for the registry."""
    done = subprocess.run(  # noqa: S603  # the user's own file names it
        [f"docker-credential-{helper}", "get"], input=registry, capture_output=True, text=True, timeout=_HELPER_S
    )
    if done.returncode:
        return None
    said = json.loads(done.stdout)
    if said["Username"] == _TOKEN_USER:
        return RefreshToken(said["Secret"])
    return Password(said["Username"], said["Secret"])
