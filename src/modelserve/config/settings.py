"""One configured value with its origin, and how layers of them lie over each other.

    file       targets.prod.region = "eu-west-1"   ─┐
    environment  MODELSERVE_TARGETS__PROD__REGION  ─┼─ over ──► what counts, each value with where it was said
    code       serve("prod", region=...)           ─┘

Tables are taken apart into their leaves, so that one leaf can be overridden without repeating its table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from modelserve.errors import ConfigError

Key: TypeAlias = tuple[str, ...]

_REFERENCE = re.compile(r"\$(\$\{|\{([^{}]*)\})")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"(^|_)(token|secret|password|passphrase|credentials?|(api|access|account|private)_keys?)($|_)")


class Layer(IntEnum):
    """Who said it; the higher wins."""

    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    COMMAND_LINE = 3
    CODE = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """One value as it was written; references to the environment are still references.

    Attributes:
        key: Its path, such as ("targets", "prod", "region").
        place: Where it was said: a file, the name of a variable; empty for code and defaults.
    """

    key: Key
    value: Any
    layer: Layer
    place: str = ""

    @property
    def name(self) -> str:
        """The key as it is written in the file."""
        return dotted(self.key)

    @property
    def origin(self) -> str:
        """Where the value was said, for people."""
        if self.layer is Layer.FILE:
            return f"{self.place}: {self.name}"
        if self.layer is Layer.ENVIRONMENT:
            return f"environment {self.place}"
        return self.layer.name.lower().replace("_", " ")

    @property
    def shown(self) -> Any:
        """The value as it may be shown: a reference stays one, a literal under a secret's name is masked."""
        is_literal = self.layer is Layer.ENVIRONMENT or not _refers(self.value)
        return "***" if is_literal and _SECRET.search(self.key[-1].lower()) else self.value

    def resolved(self, environment: Mapping[str, str]) -> Any:
        """The value with every `${NAME}` replaced; `$${` stands for a literal `${`.

        Raises:
            ConfigError: a variable is not set.
        """
        # What comes from the environment or from code is meant as it stands.
        return _filled(self, self.value, environment) if self.layer is Layer.FILE else self.value

    def __repr__(self) -> str:
        return f"Setting({self.name} = {self.shown!r}, {self.origin})"


Settings: TypeAlias = Mapping[Key, Setting]


def flatten(table: Mapping[str, Any], layer: Layer, *, prefix: Key = (), place: str = "") -> dict[Key, Setting]:
    """The leaves of nested tables."""
    found: dict[Key, Setting] = {}
    for name, value in table.items():
        key = (*prefix, name)
        if isinstance(value, Mapping) and value and all(isinstance(part, str) for part in value):
            found |= flatten(value, layer, prefix=key, place=place)
        else:
            found[key] = Setting(key, value, layer, place)
    return found


def over(lower: Settings, upper: Settings) -> dict[Key, Setting]:
    """`upper` laid over `lower`: a value replaces a table of the same key, and a table a value."""
    kept = {key: setting for key, setting in lower.items() if not any(_hides(above, key) for above in upper)}
    return kept | dict(upper)


def nested(settings: Settings, *, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The tables again; with references replaced when an environment is given."""
    tree: dict[str, Any] = {}
    for key, setting in settings.items():
        branch = tree
        for part in key[:-1]:
            branch = branch.setdefault(part, {})
        branch[key[-1]] = setting.value if environment is None else setting.resolved(environment)
    return tree


def below(settings: Settings, prefix: Key) -> dict[Key, Setting]:
    """The settings under `prefix`, by the rest of their keys."""
    length = len(prefix)
    return {key[length:]: setting for key, setting in settings.items() if key[:length] == prefix and len(key) > length}


def dotted(key: Key) -> str:
    """A key as TOML writes it."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"' for part in key)


def _hides(above: Key, key: Key) -> bool:
    shared = min(len(above), len(key))
    return above != key and above[:shared] == key[:shared]


def _refers(value: Any) -> bool:
    return isinstance(value, str) and any(found[2] is not None for found in _REFERENCE.finditer(value))


def _filled(setting: Setting, value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled(setting, item, environment) for item in value]
    if isinstance(value, dict):
        return {name: _filled(setting, item, environment) for name, item in value.items()}
    if not isinstance(value, str):
        return value
    return _REFERENCE.sub(lambda found: _looked_up(setting, found, environment), value)


def _looked_up(setting: Setting, found: re.Match[str], environment: Mapping[str, str]) -> str:
    name = found[2]
    if name is None:
        return "${"
    if not _VARIABLE.fullmatch(name):
        raise ConfigError(
            f"{setting.name} ({setting.origin}) holds ${{{name}}}, which names no variable. "
            "Write ${NAME}, or $${ for a literal ${."
        )
    if name not in environment:
        raise ConfigError(
            f"{setting.name} ({setting.place}) refers to the environment variable {name!r}, which is not set. "
            f"Set it, or write the value of {setting.name} another way."
        )
    return environment[name]
