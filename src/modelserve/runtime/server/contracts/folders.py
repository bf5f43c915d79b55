"""Where the model lies within what a cloud mounts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelserve.bundle.store import MANIFEST
from modelserve.errors import ConfigError

_DEPTH = 3


def model_settings(folder: Path) -> dict[str, Any]:
    """The settings for a folder that is a bundle, holds one, or holds several."""
    found = bundle_in(folder)
    return {"model": found} if found is not None else {"models": folder}


def bundle_in(folder: Path) -> Path | None:
    """The only bundle in a folder, at most so many folders down: what is uploaded often keeps its own folder."""
    for _ in range(_DEPTH):
        if (folder / MANIFEST).is_file():
            return folder
        if not folder.is_dir():
            return None
        inner = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        if len(inner) != 1:
            return None
        folder = inner[0]
    return folder if (folder / MANIFEST).is_file() else None


def port(environment: Mapping[str, str], variable: str, default: int) -> int:
    """The port that a variable names.

    Raises:
        ConfigError: it names none.
    """
    text = environment.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigError(f"{variable} is {text!r}; it must be a port from 1 to 65535.")
    return int(text)
