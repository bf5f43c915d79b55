"""Which models there are: one bundle under a name, or a folder of them.

models/
    digits/                  a bundle: model "digits", version "1"
    churn/1/  churn/2/       bundles: model "churn", versions "1" and "2"; the highest is the default
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from modelserve.bundle.store import MANIFEST
from modelserve.errors import ConfigError, DeploymentNotFoundError

FIRST_VERSION = "1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Place(NamedTuple):
    """Where one version of a model lies."""

    name: str
    version: str
    path: Path


def check_name(name: str) -> str:
    """A name that can stand in a path and means nothing to a file system.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a model. Use letters, digits, '.', '_' and '-', at most 128.")
    return name


class Catalogue:
    """The bundles that may be loaded.

    Args:
        folder: Looked through again whenever somebody asks.
        single: Bundles by model name, beside those of the folder.
    """

    def __init__(self, folder: Path | None = None, single: Mapping[str, Path] | None = None) -> None:
        self.use(folder, single or {})

    def use(self, folder: Path | None, single: Mapping[str, Path]) -> None:
        """Know these from now on.

        Raises:
            ConfigError: the folder is none, or a name is none.
        """
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"{str(folder)!r} is not a folder. Name one that holds bundles.")
        self._folder = folder
        self._single = {check_name(name): path for name, path in single.items()}

    def places(self) -> list[Place]:
        """All of them, by name and then by version, the default version of each last."""
        found = [Place(name, FIRST_VERSION, path) for name, path in self._single.items()]
        if self._folder is not None:
            found += [place for place in _in_folder(self._folder) if place.name not in self._single]
        return sorted(found, key=lambda place: (place.name, version_order(place.version)))

    def find(self, name: str, version: str = "") -> Place:
        """One version, by default the highest.

        Raises:
            DeploymentNotFoundError: there is none; the message names those there are.
        """
        places = self.places()
        own = [place for place in places if place.name == name]
        if not own:
            known = ", ".join(sorted({place.name for place in places})) or "none"
            raise DeploymentNotFoundError(f"There is no model {name!r}; there are: {known}.")
        if not version:
            return own[-1]
        for place in own:
            if place.version == version:
                return place
        raise DeploymentNotFoundError(
            f"Model {name!r} has no version {version!r}; it has {', '.join(place.version for place in own)}."
        )


def version_order(version: str) -> tuple[int, int, str]:
    """Numbers by their size, before everything else."""
    return (1, int(version), "") if version.isdigit() else (2, 0, version)


def _in_folder(folder: Path) -> Iterator[Place]:
    for entry in _folders(folder):
        if (entry / MANIFEST).is_file():
            yield Place(entry.name, FIRST_VERSION, entry)
            continue
        for version in _folders(entry):
            if (version / MANIFEST).is_file():
                yield Place(entry.name, version.name, version)


def _folders(folder: Path) -> Iterator[Path]:
    # Names that no model can have are no models: hidden folders, half-made ones, links out of here.
    for entry in sorted(folder.iterdir()):
        if _NAME.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
            yield entry
