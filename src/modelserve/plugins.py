"""What other packages offer, found by entry point: listing imports nothing, loading imports one.

modelserve.backends      name -> a Backend class
modelserve.converters    name -> a Converter
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from modelserve.errors import MissingExtraError, PluginError

BACKENDS = "modelserve.backends"
CONVERTERS = "modelserve.converters"


def names(group: str) -> list[str]:
    """What is offered in `group`, sorted; imports nothing."""
    return sorted({entry.name for entry in entry_points(group=group)})


def find(group: str, name: str) -> EntryPoint | None:
    """The offer called `name`, not yet imported.

    Raises:
        PluginError: two packages offer it.
    """
    found = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if len(found) > 1:
        raise PluginError(f"{name!r} is offered by {', '.join(sorted(found))}. Uninstall all but one of them.")
    return next(iter(found.values()), None)


def load(entry: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        MissingExtraError: a package that it needs is not installed; the message says how to install it.
        ImportError: the plug-in itself is broken; its own error is raised as it is.
    """
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root in {"modelserve", entry.module.partition(".")[0]}:
            raise  # a broken plug-in, not a missing package
        raise MissingExtraError(
            f"{entry.name!r} needs the package {root!r}, which is not installed. "
            f"Install it with: pip install {_remedy(entry, root)}"
        ) from error


def _remedy(entry: EntryPoint, package: str) -> str:
    # Only our own extras are known; another's plug-in has names of its own.
    ours = entry.dist is None or entry.dist.name == "modelserve"
    return f'"modelserve[{entry.name}]"' if ours else package
