"""Layers that were made or fetched before, under MODELSERVE_HOME: each in a folder of its own, whole or not there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from modelserve.home import home
from modelserve.image.blob import Blob, digest_of

FILE = "blob"


def kept(key: str, make: Callable[[Path], None]) -> Path:
    """The folder of `key`; `make` fills a new one where there is none.

    Args:
        key: 64 hexadecimal digits that say what is in it.
    """
    room = home() / "images"
    folder = room / key
    if folder.is_dir():
        return folder
    room.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=room, prefix=".making-"))
    try:
        make(scratch)
        try:
            scratch.rename(folder)
        except OSError:
            # Another process was quicker, and made the same.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def in_store(media_type: str, content: bytes) -> Blob:
    """Bytes as a part of an image."""
    digest = digest_of(content)

    def write(into: Path) -> None:
        (into / FILE).write_bytes(content)

    folder = kept(digest.partition(":")[2], write)
    return Blob(media_type, digest, len(content), lambda: folder / FILE)
