"""The parts of an image: bytes that are named by their digest, brought to this machine only where they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from modelserve.image.reference import Reference

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """One part of an image.

    Attributes:
        bring: Puts it on this machine, where it is not there yet, and gives its file.
        origin: Where a registry has it already.
    """

    media_type: str
    digest: str
    size_bytes: int
    bring: Callable[[], Path] = field(repr=False, compare=False)
    origin: Reference | None = None

    @property
    def descriptor(self) -> dict[str, str | int]:
        """As a manifest speaks of it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Its bytes from `start` to before `stop`."""
        left = (self.size_bytes if stop is None else stop) - start
        with self.bring().open("rb") as file:
            file.seek(start)
            while left > 0 and (piece := file.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece


def digest_of(content: bytes) -> str:
    """The name of these bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def is_whole(path: Path, digest: str) -> bool:
    """Whether a file holds what its name says."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == digest
