"""The runtime's container image, built and pushed without Docker.

    reference = image.ensure("123456789012.dkr.ecr.eu-west-1.amazonaws.com/modelserve", credentials=login)

It holds the runtime and never a model: one image of each version of modelserve serves them all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelserve.errors import MissingExtraError
from modelserve.image.credentials import (
    Bearer,
    Credentials,
    Login,
    Password,
    RefreshToken,
    Through,
    anonymous,
    configured,
)
from modelserve.image.platform import Platform, refuse_accelerator
from modelserve.image.reference import Reference

if TYPE_CHECKING:
    from modelserve.image.assembly import Image, build, tag_of
    from modelserve.image.layout import write_layout
    from modelserve.image.publish import Progress, Pushed, ensure, find, push
    from modelserve.image.recipe import DEFAULT_BASE, Recipe
    from modelserve.image.upload import Outcome

_NEEDED = {"httpx", "packaging"}
#: What talks to registries and reads requirements needs these, and loads them on first use.
_HOME = {
    "DEFAULT_BASE": "recipe",
    "Image": "assembly",
    "Outcome": "upload",
    "Progress": "publish",
    "Pushed": "publish",
    "Recipe": "recipe",
    "build": "assembly",
    "ensure": "publish",
    "find": "publish",
    "push": "publish",
    "tag_of": "assembly",
    "write_layout": "layout",
}

__all__ = [
    "DEFAULT_BASE",
    "Bearer",
    "Credentials",
    "Image",
    "Login",
    "Outcome",
    "Password",
    "Platform",
    "Progress",
    "Pushed",
    "Recipe",
    "Reference",
    "RefreshToken",
    "Through",
    "anonymous",
    "build",
    "configured",
    "ensure",
    "find",
    "push",
    "refuse_accelerator",
    "tag_of",
    "write_layout",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f".{_HOME[name]}", __name__), name)
        except ModuleNotFoundError as error:
            if error.name not in _NEEDED:
                raise
            raise MissingExtraError(
                f"Images need the package {error.name!r}, which is not installed. "
                'Install it with: pip install "modelserve[image]"'
            ) from error
