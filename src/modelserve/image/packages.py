"""The packages of the runtime: those of this environment, at the versions that are installed here.

Who serves a model was tested with these versions, and the local workers answer with them; the image carries the same.
What a requirement asks for under a condition (a processor, a version of Python) is decided for the image's machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modelserve.errors import ImageError
from modelserve.image.platform import Platform

_PRODUCT = "modelserve"


class Pin(NamedTuple):
    """One package at one version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def pinned(extras: Iterable[str], platform: Platform, python: str) -> list[Pin]:
    """What modelserve and its `extras` need there, by name, modelserve itself left out.

    Raises:
        ImageError: one of them is not installed here, so that its version is not known.
    """
    markers = platform.markers(python)
    found: dict[str, Pin] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(_PRODUCT, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        installed = _installed(name)
        if name != _PRODUCT:
            found[name] = Pin(name, installed.version)
        waiting += _needed(installed, {**markers, "extra": extra})
    return sorted(found.values())


def check_extras(extras: Iterable[str]) -> None:
    """Refuse what modelserve has no extra for.

    Raises:
        ImageError: naming those that it has.
    """
    known = _installed(_PRODUCT).metadata.get_all("Provides-Extra") or []
    for extra in extras:
        if extra not in known:
            raise ImageError(f"modelserve has no extra {extra!r}; it has {', '.join(sorted(known))}.")


def _needed(installed: Distribution, markers: dict[str, str]) -> Iterator[tuple[str, str]]:
    for line in installed.requires or []:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate(markers):
            name = canonicalize_name(wanted.name)
            yield from ((name, extra) for extra in ("", *wanted.extras))


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise ImageError(
            f"The runtime needs the package {name!r}, which is not installed here; an image takes the versions of this "
            f'environment. Install it with: pip install {name} (or "modelserve[server]").'
        ) from None


def python_version(text: str) -> str:
    """The version of Python by which wheels are named: "3.12" of "3.12.4".

    Raises:
        ImageError: it is none.
    """
    match = re.match(r"(3\.\d+)(\.|$)", text)
    if match is None:
        raise ImageError(f"{text!r} is no version of Python. Write it as 3.12.")
    return match[1]
