"""Files as one layer of an image: the same files always give the same bytes.

Sorted by path, owned by nobody in particular (0:0), of no time: a digest names what is in it, and never when or by whom
it was made.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, TypeAlias

from modelserve.errors import ImageError
from modelserve.image.blob import Blob, digest_of
from modelserve.image.store import kept

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
#: Part of every kept layer's key: raise it when the same files come to give other bytes.
FORMAT = 1
_LEVEL = 6
_FILE, _FACTS = "layer.tar.gz", "layer.json"


class Entry(NamedTuple):
    """One file of a layer. `path` is below the image's root, without a slash in front."""

    path: str
    is_executable: bool
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer. `diff_id` is the digest of what it unpacks to."""

    blob: Blob
    diff_id: str


Write: TypeAlias = Callable[[Iterable[Entry]], None]


def keep(key: str, fill: Callable[[Write], None], *, level: int = _LEVEL) -> Layer:
    """The layer that is kept under `key`, made now where there is none yet.

    Args:
        key: Says all that the layer's content depends on.
        fill: Calls what it is given, once, with the layer's files.
        level: How hard to squeeze, 1 to 9.
    """
    folder = kept(
        digest_of(f"{FORMAT} {key}".encode()).partition(":")[2],
        lambda into: fill(lambda entries: _make(entries, into, level)),
    )
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    blob = Blob(MEDIA_TYPE, facts["digest"], facts["size_bytes"], lambda: folder / _FILE)
    return Layer(blob, facts["diff_id"])


def _make(entries: Iterable[Entry], into: Path, level: int) -> None:
    with (into / _FILE).open("wb") as file:
        packed = _Hashing(file)
        with gzip.GzipFile("", "wb", level, packed, mtime=0) as squeezed:
            plain = _Hashing(squeezed)
            _write_tar(entries, plain)
    facts = {"digest": packed.digest, "diff_id": plain.digest, "size_bytes": packed.size_bytes}
    (into / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _write_tar(entries: Iterable[Entry], into: Any) -> None:
    files = {_checked(entry.path): entry for entry in entries}
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
    with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folders | files.keys()):
            tar.addfile(*_member(path, files.get(path)))


def _member(path: str, entry: Entry | None) -> tuple[tarfile.TarInfo, IO[bytes] | None]:
    member = tarfile.TarInfo(path)
    if entry is None:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        return member, None
    content = entry.read()
    member.size, member.mode = len(content), 0o755 if entry.is_executable else 0o644
    return member, io.BytesIO(content)


def _checked(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ImageError(f"A file named {path!r} would lie outside of its image. Remove the package that brings it.")
    return str(PurePosixPath(path))


class _Hashing:
    """Counts and hashes what goes through it."""

    def __init__(self, into: Any) -> None:
        self._into = into
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size_bytes += len(data)
        self._into.write(data)
        return len(data)

    def flush(self) -> None:
        self._into.flush()
