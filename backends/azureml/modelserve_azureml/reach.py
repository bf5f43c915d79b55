"""The way to Azure: the usual one, or through a proxy and an authority that the options name."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelserve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Reach:
    """How clients get there. Nothing of it is put where other clients of this process would see it."""

    proxy: str = ""
    ca: Path | None = None

    def for_httpx(self) -> dict[str, Any]:
        """Arguments of an httpx client; without any, it does what the environment says."""
        found: dict[str, Any] = {}
        if self.ca is not None:
            found["verify"] = self._context()
        if self.proxy:
            found |= {"proxy": self.proxy, "trust_env": False}
        return found

    def for_azure(self) -> dict[str, Any]:
        """Arguments of a client of Microsoft's."""
        found: dict[str, Any] = {}
        if self.ca is not None:
            found["connection_verify"] = str(self.ca)
        if self.proxy:
            found |= {"proxies": {"https": self.proxy, "http": self.proxy}, "use_env_settings": False}
        return found

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=str(self.ca))
        except OSError as error:
            raise ConfigError(
                f"The option ca names {str(self.ca)!r}, which cannot be read as certificates ({error})."
            ) from error
