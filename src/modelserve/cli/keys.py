"""`modelserve keys`: the API keys of a server, in a file of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from modelserve.cli.output import print_json, print_line, print_table
from modelserve.home import home
from modelserve.runtime.server.access.keys import Key, KeyFile

_DAY_S = 86400.0


def default_file() -> Path:
    """Where keys lie when no file is named."""
    return home() / "keys.json"


def create(
    file: Path | None,
    name: str,
    *,
    scopes: Sequence[str],
    models: Sequence[str],
    days: float,
    rate: float,
    as_json: bool,
) -> None:
    """Make a key and print it, this one time."""
    keys = KeyFile(file or default_file())
    made = keys.create(name, scopes=scopes, models=models, lifetime_s=days * _DAY_S, rate_per_s=rate)
    if as_json:
        print_json({"key": made, "file": str(keys.path)})
    else:
        print_line(made)


def show(file: Path | None, *, as_json: bool) -> None:
    """List the keys; their secrets are nowhere."""
    found = KeyFile(file or default_file()).keys()
    if as_json:
        print_json([{**_shown(key), "scopes": list(key.scopes), "models": list(key.models)} for key in found])
        return
    print_table(
        ("id", "name", "scopes", "models", "expires"),
        [
            (key.id, key.name, ", ".join(key.scopes), ", ".join(key.models) or "all", str(_shown(key)["expires"]))
            for key in found
        ],
    )


def revoke(file: Path | None, key_id: str) -> None:
    """Let a key open nothing any more."""
    KeyFile(file or default_file()).revoke(key_id)
    print_line(f"Revoked {key_id}.")


def _shown(key: Key) -> dict[str, object]:
    expires = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(key.expires_at)) if key.expires_at else "never"
    return {"id": key.id, "name": key.name, "expires": f"{expires} (expired)" if key.has_expired else expires}
