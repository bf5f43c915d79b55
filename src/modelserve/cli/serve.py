"""`modelserve serve`: a bundle, or a folder of bundles, behind HTTP until a signal ends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelserve.bundle.store import MANIFEST
from modelserve.cli.output import print_line
from modelserve.errors import ConfigError
from modelserve.runtime.server import ServerSettings, read_settings
from modelserve.runtime.server.process import run as run_process


def run(path: Path | None, *, given: Mapping[str, Any], further: Sequence[str]) -> None:
    """Serve, and end this process with the server's exit status.

    Args:
        given: Settings by field; None where the command line does not say.
        further: Settings as NAME=VALUE.
    """
    arguments = {**dict(map(_divided, further)), **{name: value for name, value in given.items() if value is not None}}
    if path is not None:
        if not path.is_dir():
            raise ConfigError(f"{str(path)!r} is not a folder. Name a bundle, or a folder that holds bundles.")
        arguments["model" if (path / MANIFEST).is_file() else "models"] = path
    # For people lines are text, and the address stands where they look for it; a log file gets JSON.
    arguments.setdefault("log_format", "text" if sys.stderr.isatty() else "json")
    settings = read_settings(arguments, os.environ)
    sys.exit(run_process(settings, told=print_line if sys.stdout.isatty() else None))


def _divided(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    field = name.replace("-", "_")
    if not found or field not in ServerSettings.model_fields:
        known = ", ".join(ServerSettings.model_fields)
        raise ConfigError(f"--set takes NAME=VALUE with one of {known}; got {text!r}.")
    return field, value
