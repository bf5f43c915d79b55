"""`modelserve config`: what is configured, and where each value came from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.text import Text

from modelserve import plugins
from modelserve.cli.output import QUIET, print_heading, print_json, print_line, print_table
from modelserve.config import Config, Layer, Setting, load_config
from modelserve.config.settings import dotted


def show(target: str | None, *, with_origin: bool, as_json: bool) -> None:
    """Print the default target and each target's values; references to secrets stay references."""
    config = load_config()
    settings = _settings(config, target)
    if as_json:
        print_json({"file": str(config.file) if config.file else None, "settings": list(map(_as_json, settings))})
        return
    print_heading("Configuration", str(config.file) if config.file else "no modelserve.toml found; these are defaults")
    print_line("")
    columns = ["key", "value", *(["origin"] if with_origin else [])]
    print_table(columns, [_row(setting, with_origin) for setting in settings])


def schema() -> None:
    """Print the JSON schema of the file."""
    from modelserve.config.schema import json_schema

    sys.stdout.write(json_schema())


def _settings(config: Config, target: str | None) -> list[Setting]:
    backends = plugins.names(plugins.BACKENDS)
    names = [target] if target is not None else config.target_names or [config.default_target.value]
    found = [config.default_target] if target is None else []
    for name in names:
        for key, setting in config.target(name, backends=backends).settings.items():
            found.append(Setting(("targets", name, *key), setting.value, setting.layer, setting.place))
    return found


def _row(setting: Setting, with_origin: bool) -> list[str | Text]:
    value = setting.shown if isinstance(setting.shown, str) else json.dumps(setting.shown, default=str)
    return [dotted(setting.key), value, *([Text(_origin(setting), QUIET)] if with_origin else [])]


def _origin(setting: Setting) -> str:
    # The heading names the whole path of the only file there is, and the first column the key.
    return Path(setting.place).name if setting.layer is Layer.FILE else setting.origin


def _as_json(setting: Setting) -> dict[str, Any]:
    return {
        "key": dotted(setting.key),
        "value": setting.shown,
        "layer": setting.layer.name.lower(),
        "origin": setting.place or setting.origin,
    }
