"""Where settings come from: the nearest file, and the environment.

modelserve.toml                     default_target, [targets.<name>]
pyproject.toml                      the same under [tool.modelserve]
MODELSERVE_TARGET                   default_target
MODELSERVE_TARGETS__PROD__REGION    targets.prod.region
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modelserve.config.settings import Key, Layer, Setting, flatten
from modelserve.errors import ConfigError

FILE = "modelserve.toml"
PYPROJECT = "pyproject.toml"
DEFAULT_TARGET_VARIABLE = "MODELSERVE_TARGET"
_PREFIX = "MODELSERVE_TARGETS__"


def find_file(start: Path) -> Path | None:
    """The nearest file that configures modelserve, from the folder `start` upwards."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder / FILE
        pyproject = folder / PYPROJECT
        if pyproject.is_file() and b"tool.modelserve" in pyproject.read_bytes() and _table(pyproject) is not None:
            return pyproject
    return None


def read_file(path: Path) -> dict[Key, Setting]:
    """The settings of one file.

    Raises:
        ConfigError: it cannot be read or is not TOML.
    """
    return flatten(_table(path) or {}, Layer.FILE, place=str(path))


def read_environment(environment: Mapping[str, str], targets: Iterable[str]) -> dict[Key, Setting]:
    """The settings that `MODELSERVE_*` variables give.

    Args:
        targets: The names of the file's targets, which are matched whatever their case, "-" by "_".

    Raises:
        ConfigError: a variable names a target but no key of it.
    """
    spelled = {_plain(name): name for name in targets}
    found: dict[Key, Setting] = {}
    for variable, text in environment.items():
        if variable == DEFAULT_TARGET_VARIABLE and text:
            found["default_target",] = Setting(("default_target",), text, Layer.ENVIRONMENT, variable)
        elif variable.startswith(_PREFIX):
            found |= _from_variable(variable, text, spelled)
    return found


def _table(path: Path) -> dict[str, Any] | None:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error}). Correct the file.") from error
    if path.name != PYPROJECT:
        return content
    tool = content.get("tool", {}).get("modelserve")
    if tool is not None and not isinstance(tool, dict):
        raise ConfigError(f"tool.modelserve in {str(path)!r} must be a table, got {tool!r}.")
    return tool


def _from_variable(variable: str, text: str, spelled: Mapping[str, str]) -> dict[Key, Setting]:
    parts = variable.removeprefix(_PREFIX).lower().split("__")
    if len(parts) < 2 or not all(parts):
        raise ConfigError(f"The environment variable {variable!r} names no key. Write {_PREFIX}<TARGET>__<KEY>.")
    key = ("targets", spelled.get(parts[0], parts[0]), *parts[1:])
    value = value_of(text)
    if isinstance(value, dict) and value:
        return flatten(value, Layer.ENVIRONMENT, prefix=key, place=variable)
    return {key: Setting(key, value, Layer.ENVIRONMENT, variable)}


def value_of(text: str) -> Any:
    """A TOML value where the text is one (2, true, [1, 2], "quoted"), and otherwise the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    # A line break in the text could have written further keys; a date is text to every option.
    is_value = len(parsed) == 1 and isinstance(value, bool | int | float | str | list | dict)
    return value if is_value else text


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
