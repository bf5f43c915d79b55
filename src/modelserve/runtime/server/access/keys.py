"""API keys: made once and shown once; at rest only their hashes.

msk_<id>_<secret>      id finds the record, the secret's SHA-256 is compared in constant time

The secret has 256 random bits, so a fast hash is as good as a slow one: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelserve.errors import ConfigError, InputError
from modelserve.runtime.server.access.caller import Caller
from modelserve.runtime.server.routes import Scope

_PREFIX = "msk"
_SCOPES = (Scope.PREDICT, Scope.METRICS, Scope.ADMIN)
_CHECK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Key:
    """One key at rest. Times in seconds since 1970; `expires_at` of 0 is never."""

    id: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] = ()
    created_at: float = 0.0
    expires_at: float = 0.0
    rate_per_s: float = 0.0

    @property
    def has_expired(self) -> bool:
        return bool(self.expires_at) and time.time() >= self.expires_at

    @property
    def caller(self) -> Caller:
        return Caller(
            f"key:{self.id}:{self.name}",
            frozenset(Scope(scope) for scope in self.scopes),
            frozenset(self.models) or None,
            self.rate_per_s or None,
        )


class KeyFile:
    """Keys in a file of their own, readable by its owner only; changed as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: dict[str, Key] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked_at = 0.0
        self.read()

    def read(self) -> None:
        """Read the file again. A file that is not there holds no keys.

        Raises:
            ConfigError: it cannot be read, or others than its owner may read it.
        """
        try:
            found = self.path.stat()
            content = json.loads(self.path.read_bytes())
            self._keys = {key["id"]: _key(key) for key in content["keys"]}
        except FileNotFoundError:
            self._keys, self._stamp = {}, None
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"The keys in {str(self.path)!r} cannot be read ({error}). Correct the file.") from error
        if os.name == "posix" and found.st_mode & 0o077:
            raise ConfigError(f"Others may read {str(self.path)!r}, which holds keys. Say: chmod 600 {self.path}")
        self._stamp = (found.st_mtime_ns, found.st_size)

    def keys(self) -> list[Key]:
        """Those that were made and not revoked, oldest first."""
        return sorted(self._keys.values(), key=lambda key: key.created_at)

    def create(
        self,
        name: str,
        *,
        scopes: Sequence[str] = ("predict",),
        models: Sequence[str] = (),
        lifetime_s: float = 0.0,
        rate_per_s: float = 0.0,
    ) -> str:
        """Make a key; the text returned is the only time that it can be seen.

        Raises:
            InputError: scopes that there are not, times or rates below 0.
        """
        unknown = [scope for scope in scopes if scope not in {known.value for known in _SCOPES}]
        if unknown or not scopes:
            known = ", ".join(scope.value for scope in _SCOPES)
            raise InputError(f"A key has scopes out of {known}; got {list(scopes)}.")
        if lifetime_s < 0 or rate_per_s < 0 or not name.isprintable():
            raise InputError("A key's lifetime and rate must not be below 0, and its name must be printable text.")
        secret, now = secrets.token_urlsafe(32), time.time()
        key = Key(
            secrets.token_hex(4),
            name,
            _hash(secret),
            tuple(scopes),
            tuple(models),
            now,
            now + lifetime_s if lifetime_s else 0.0,
            rate_per_s,
        )
        self._write({**self._keys, key.id: key})
        return f"{_PREFIX}_{key.id}_{secret}"

    def revoke(self, key_id: str) -> None:
        """Let a key open nothing any more.

        Raises:
            InputError: there is none of that id.
        """
        if key_id not in self._keys:
            raise InputError(f"There is no key {key_id!r}; there are: {', '.join(self._keys) or 'none'}.")
        self._write({other: key for other, key in self._keys.items() if other != key_id})

    def recognise(self, credential: str) -> Caller | None:
        """Who shows this key."""
        self._refresh()
        prefix, _, rest = credential.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self._keys.get(key_id) if prefix == _PREFIX else None
        # Compared also where there is none, so that time does not tell which ids there are.
        same = hmac.compare_digest(_hash(secret), key.sha256 if key is not None else "0" * 64)
        return key.caller if key is not None and same and not key.has_expired else None

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _CHECK_EVERY_S:
            return
        self._looked_at = now
        try:
            found = self.path.stat()
            if (found.st_mtime_ns, found.st_size) != self._stamp:
                self.read()
        except FileNotFoundError:
            self._keys, self._stamp = {}, None
        except ConfigError:
            self._keys = {}  # half a file of keys opens nothing

    def _write(self, keys: dict[str, Key]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"keys": [asdict(key) for key in keys.values()]}, indent=2) + "\n"
        # mkstemp's files are their owner's alone.
        descriptor, scratch = tempfile.mkstemp(dir=self.path.parent, prefix=".keys-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        Path(scratch).replace(self.path)
        self.read()


def _key(content: dict[str, Any]) -> Key:
    return Key(**{**content, "scopes": tuple(content["scopes"]), "models": tuple(content["models"])})


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
