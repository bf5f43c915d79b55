"""What everything made by modelserve is called, and what it says of itself.

names     <deployment>-<12 hex of what it is made of>      the same request always has the same name
marks     made by modelserve, its version, the deployment, the bundle's digest      as tags or labels

Content-addressed names make a second attempt find what the first one made; marks let `list` and `delete` find what
no name leads to any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Any, Self

_DIGEST_LETTERS = 12
_MADE_BY = "modelserve"
#: Labels of some clouds are too short for a digest; it then goes on in a second one.
_HALF = 32


@dataclass(frozen=True, slots=True)
class Marks:
    """Tags or labels of one resource."""

    deployment: str
    digest: str
    version: str = ""

    @classmethod
    def of(cls, deployment: str, digest: str) -> Self:
        """Marks by this version of modelserve."""
        return cls(deployment, digest, installed_version("modelserve"))

    def as_tags(self, separator: str = ":", *, is_short: bool = False) -> dict[str, str]:
        """Tags by key, such as `modelserve:deployment`.

        Args:
            separator: Between the words of a key; labels of Google Cloud take no colon.
            is_short: Whether values have fewer than 64 characters, and neither capitals nor dots.
        """
        values = {
            "made-by": _MADE_BY,
            "deployment": self.deployment,
            "version": self.version.replace(".", "-") if is_short else self.version,
        }
        if is_short:
            values |= {"digest": self.digest[:_HALF], "digest-rest": self.digest[_HALF:]}
        else:
            values["digest"] = self.digest
        return {f"{_MADE_BY}{separator}{name}": value for name, value in values.items()}

    @classmethod
    def read(cls, tags: Mapping[str, str], separator: str = ":") -> Self | None:
        """The marks among a resource's tags; None where modelserve did not make it."""
        found = {name: tags.get(f"{_MADE_BY}{separator}{name}", "") for name in _NAMES}
        if found["made-by"] != _MADE_BY:
            return None
        return cls(found["deployment"], found["digest"] + found["digest-rest"], found["version"])


def content_name(prefix: str, content: Any, *, longest: int = 63) -> str:
    """`prefix`, cut to fit, and a digest of `content` (plain JSON): the same content has the same name.

    Raises:
        ValueError: `longest` leaves no room.
    """
    if longest <= _DIGEST_LETTERS + 1:
        raise ValueError(f"A name of {longest} characters has no room for a digest.")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LETTERS]
    return f"{prefix[: longest - _DIGEST_LETTERS - 1].rstrip('-')}-{digest}"


_NAMES = ("made-by", "deployment", "version", "digest", "digest-rest")
