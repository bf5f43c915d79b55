"""Which packages are installed, by their metadata; nothing is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

_REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)[^;]*(;.*extra == ['\"](?P<extra>[^'\"]+)['\"])?")

#: name, module, the distributions that bring it (the first is what is advised), the extra that converts it
_FRAMEWORKS = (
    ("PyTorch", "torch", ("torch",), "torch"),
    ("TensorFlow", "tensorflow", ("tensorflow", "tensorflow-cpu"), "keras"),
    ("Keras", "keras", ("keras",), "keras"),
    ("scikit-learn", "sklearn", ("scikit-learn",), "sklearn"),
)


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework whose models can be served.

    Attributes:
        version: None when it is not installed.
        package: What to install for it.
        missing: What its extra brings and is not installed.
    """

    name: str
    version: str | None
    package: str
    extra: str
    missing: tuple[str, ...]


def frameworks() -> list[Framework]:
    """The frameworks that modelserve knows."""
    return [
        Framework(
            name, _installed(module, packages), packages[0], extra, tuple(missing_requirements("modelserve", extra))
        )
        for name, module, packages, extra in _FRAMEWORKS
    ]


def version_of(package: str) -> str | None:
    """The installed version; None when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def missing_requirements(package: str, extra: str | None = None) -> list[str]:
    """What `package`, or its extra, asks for and is not installed."""
    try:
        lines = requires(package) or []
    except PackageNotFoundError:
        return []
    wanted = [found for line in lines if (found := _REQUIREMENT.match(line)) and found["extra"] == extra]
    return sorted(found["name"] for found in wanted if version_of(found["name"]) is None)


def _installed(module: str, packages: tuple[str, ...]) -> str | None:
    known = next((found for package in packages if (found := version_of(package))), None)
    # Some builds carry a distribution name of their own.
    return known or ("of unknown version" if find_spec(module) is not None else None)
