"""The targets that a user can name: what is configured, checked once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelserve.config.settings import Layer, Setting, Settings, below, flatten, nested, over
from modelserve.config.sources import find_file, read_environment, read_file
from modelserve.errors import UnknownTargetError

DEFAULT_TARGET = "local"
_OWN_KEYS = ("backend", "scale", "optimize")


@dataclass(frozen=True, slots=True)
class Target:
    """A backend and what it is told; values are still as written, so that no secret is held or shown.

    Attributes:
        settings: Every value by its key within the target.
    """

    name: str
    settings: Settings
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def backend(self) -> str:
        """The name of its backend."""
        return str(self._value("backend"))

    @property
    def scale(self) -> int | dict[str, Any] | None:
        """A number of replicas, or a table of `Scale`'s fields."""
        value: int | dict[str, Any] | None = self._value("scale")
        return value

    @property
    def optimize(self) -> Any:
        """The plan, as written."""
        return self._value("optimize")

    def options(self) -> dict[str, Any]:
        """The backend's own options, with `${NAME}` replaced.

        Raises:
            ConfigError: a variable that is referred to is not set.
        """
        own = {key: setting for key, setting in self.settings.items() if key[0] not in _OWN_KEYS}
        return nested(own, environment=self.environment)

    def _value(self, name: str) -> Any:
        mine = {key: setting for key, setting in self.settings.items() if key[0] == name}
        return nested(mine, environment=self.environment).get(name)


@dataclass(frozen=True, slots=True)
class Config:
    """What file and environment say together.

    Attributes:
        file: The file that was found, if any.
        settings: Every value by its full key.
    """

    file: Path | None
    settings: Settings
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def default_target(self) -> Setting:
        """The target of a call that names none."""
        key = ("default_target",)
        return self.settings.get(key) or Setting(key, DEFAULT_TARGET, Layer.DEFAULT)

    @property
    def target_names(self) -> list[str]:
        """The targets that file or environment configure, in their order."""
        return list(dict.fromkeys(key[1] for key in self.settings if key[0] == "targets" and len(key) > 1))

    def target(
        self,
        name: str | None = None,
        *,
        backends: Sequence[str] = (),
        command_line: Mapping[str, Any] | None = None,
        code: Mapping[str, Any] | None = None,
    ) -> Target:
        """The target called `name`, or the default one, with what was said nearer to the call laid over it.

        Args:
            backends: The installed backends; a name that no target has means the backend of that name.

        Raises:
            UnknownTargetError: there is neither such a target nor such a backend.
        """
        chosen = name if name is not None else self.default_target.value
        found = below(self.settings, ("targets", chosen))
        if not found:
            found = _implied(chosen, self, backends)
        for table, layer in ((command_line, Layer.COMMAND_LINE), (code, Layer.CODE)):
            found = over(found, flatten(table or {}, layer))
        return Target(chosen, found, self.environment)


def load_config(start: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """What is configured for a program that runs in the folder `start`.

    Args:
        start: By default the working directory.
        environment: By default the process's.

    Raises:
        ConfigError: a file cannot be read, or a key or a value in it makes no sense.
    """
    variables = dict(os.environ) if environment is None else environment
    file = find_file((start or Path.cwd()).absolute())
    written = read_file(file) if file is not None else {}
    targets = dict.fromkeys(key[1] for key in written if key[0] == "targets" and len(key) > 1)
    settings = over(written, read_environment(variables, targets))
    if settings:
        # pydantic takes longer to import than the rest of this package together.
        from modelserve.config.schema import check

        check(settings)
    return Config(file, settings, variables)


def _implied(name: str, config: Config, backends: Sequence[str]) -> dict[tuple[str, ...], Setting]:
    if name in backends or name == DEFAULT_TARGET:
        return {("backend",): Setting(("backend",), name, Layer.DEFAULT)}
    known = config.target_names
    where = f" ({config.file})" if config.file else ""
    configured = f"Configured are {_listed(known)}{where}" if known else "None is configured"
    near = difflib.get_close_matches(name, [*known, *backends], 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Add [targets.{name}] with a backend to modelserve.toml."
    raise UnknownTargetError(
        f"There is no target {name!r}. {configured}; installed backends are {_listed(backends)}. {hint}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
