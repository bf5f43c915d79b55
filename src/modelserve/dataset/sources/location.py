"""From what people write (a path, a folder, a glob, a URL, several of them) to files in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modelserve.errors import MissingExtraError, SourceError

_MAGIC = "*?["
# What tells one version of a file in a store from the next, where the store says it.
_VERSIONS = (
    "ETag",
    "etag",
    "generation",
    "content_md5",
    "md5Hash",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)


@dataclass(frozen=True, slots=True)
class File:
    """One file of a source.

    Attributes:
        version: Changes when the content does.
        filesystem: What fsspec opens it with; None for a file of this machine.
    """

    path: str
    size_bytes: int
    version: str
    filesystem: Any = None

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix.lower()

    def open(self) -> Any:
        """A binary file for reading, seekable."""
        if self.filesystem is None:
            return Path(self.path).open("rb")
        return self.filesystem.open(self._inner, "rb")

    @property
    def _inner(self) -> str:
        return str(self.filesystem._strip_protocol(self.path))  # noqa: SLF001  # fsspec has no public name for it


def locate(places: Sequence[str]) -> list[File]:
    """The files that are meant, each place's in the order of their names; none of them hidden.

    Raises:
        SourceError: a place holds no file.
        MissingExtraError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    found = [file for place in places for file in _located(place)]
    names = [file.path for file in found]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise SourceError(f"{twice!r} is named twice by {list(places)}. Name each file once.")
    return found


def is_url(place: str) -> bool:
    """Whether fsspec is to open it."""
    return "://" in place


def _located(place: str) -> list[File]:
    found = sorted(_from_url(place) if is_url(place) else _from_disk(place), key=lambda file: file.path)
    shown = [file for file in found if not _is_hidden(file.path)]
    if not shown:
        raise SourceError(f"There is no file at {place!r}. Give a file, a folder, or a pattern such as 'orders/*.csv'.")
    return shown


def _is_hidden(path: str) -> bool:
    return PurePosixPath(path).name.startswith((".", "_"))


def _from_disk(place: str) -> Iterator[File]:
    path = Path(place).expanduser()
    if path.is_dir():
        candidates = [inner for inner in path.rglob("*") if not _is_below_hidden(inner.relative_to(path))]
    elif path.exists() or not any(letter in place for letter in _MAGIC):
        candidates = [path]
    else:
        import glob

        candidates = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207  # absolute patterns, too
    for candidate in candidates:
        if candidate.is_file():
            status = candidate.stat()
            yield File(str(candidate.absolute()), status.st_size, str(status.st_mtime_ns))


def _is_below_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _from_url(place: str) -> Iterator[File]:
    try:
        import fsspec

        filesystem, inner = fsspec.core.url_to_fs(place)
    except ImportError as error:
        raise MissingExtraError(
            f"{place!r} needs a package that is not installed: {error}. "
            'Install fsspec with: pip install "modelserve[dataset]"; stores need their own, such as s3fs or gcsfs.'
        ) from error
    except ValueError as error:
        raise SourceError(f"{place!r} is no address that can be read: {error}.") from error
    try:
        if any(letter in inner for letter in _MAGIC):
            entries = filesystem.glob(inner, detail=True)
        else:
            entries = filesystem.find(inner, detail=True)
    except OSError as error:
        raise SourceError(f"{place!r} cannot be listed: {error}") from error
    for name, entry in entries.items():
        if entry.get("type", "file") == "file":
            version = next((f"{key}={entry[key]}" for key in _VERSIONS if entry.get(key) is not None), "")
            yield File(filesystem.unstrip_protocol(name), int(entry.get("size") or 0), version, filesystem)
