"""The folder of a result: one run writes into it at a time, and a part is there whole or not at all.

    bytes ──► .part-00003.parquet.tmp ──fsync──► rename ──fsync of the folder──► a line of the manifest ──fsync──►

What is seen under a part's name is therefore complete, and what the manifest names is on disk, whatever is killed when.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from modelserve.dataset import manifest
from modelserve.dataset.manifest import Entry, Manifest, differences
from modelserve.dataset.part import Part
from modelserve.errors import FolderInUseError, ResumeError, SinkError

REPORT = "_report.json"
_LOCK = "_lock"
_OURS = re.compile(r"part-\d{5,}\.\w+|_failed-\d{5,}\.jsonl|\..+\.tmp")


class Folder:
    """A folder that is held for one run until the end of `with`.

    Raises:
        FolderInUseError: another run holds it.
        SinkError: it cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path / _LOCK)
        except OSError as error:
            raise SinkError(f"{str(path)!r} cannot be written to: {error}. Name another folder.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self.path / _LOCK).unlink(missing_ok=True)
        os.close(self._lock)
        for folder in self._made:  # a run that came to nothing leaves nothing
            if any(folder.iterdir()):
                break
            folder.rmdir()

    def manifest(self) -> Manifest | None:
        """What is here already.

        Raises:
            ResumeError: there are files of somebody else's.
        """
        path = self.path / manifest.NAME
        found = Manifest.parsed(path.read_bytes()) if path.exists() else None
        if found is None:
            self._refuse_strangers()
        return found

    def restart(self) -> None:
        """Remove what an earlier run has left.

        Raises:
            ResumeError: there are files of somebody else's; nothing was removed.
        """
        self._refuse_strangers()
        self.clear()

    def clear(self) -> None:
        """Remove what a run has left, the manifest first; nothing else."""
        (self.path / manifest.NAME).unlink(missing_ok=True)
        (self.path / REPORT).unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if _OURS.fullmatch(entry.name):
                entry.unlink()

    def begin(self, found: Manifest) -> None:
        """Forget parts that are not whole, remove scraps, and write the manifest as it is now."""
        for index, entry in list(found.entries.items()):
            if not all(self._is_whole(file) for file in (entry.file, entry.dead_letters) if file is not None):
                del found.entries[index]
                found.is_complete = False
        for path in self.path.glob(".*.tmp"):
            path.unlink()
        self._write(manifest.NAME, found.content())

    def commit(self, part: Part, suffix: str) -> Entry:
        """Put a part in its place, for good.

        Raises:
            SinkError: there is no room, or the folder is gone; the parts before it are not touched.
        """
        letters = None
        if part.dead_letters:
            letters = self._put(f"_failed-{part.number:05d}.jsonl", part.dead_letters)
        file = self._put(f"part-{part.number:05d}{suffix}", part.content)
        entry = Entry(part.number, part.rows, part.failed, file, letters, part.read_digest)
        self._append(entry.line())
        return entry

    def finish(self, found: Manifest) -> None:
        """Nothing is missing."""
        found.is_complete = True
        self._write(manifest.NAME, found.content())

    def write_report(self, content: bytes) -> None:
        self._write(REPORT, content)

    def _put(self, name: str, content: Any) -> dict[str, Any]:
        self._write(name, content)
        return {"name": name, "bytes": len(memoryview(content)), "sha256": hashlib.sha256(content).hexdigest()}

    def _write(self, name: str, content: Any) -> None:
        scratch = self.path / f".{name}.tmp"
        try:
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self.path / name)
            self._sync()
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise _unwritable(self.path / name, error) from error

    def _append(self, line: bytes) -> None:
        path = self.path / manifest.NAME
        before = path.stat().st_size
        try:
            with path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, before)
            raise _unwritable(path, error) from error

    def _sync(self) -> None:
        """The folder's own entries are on disk, too."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _is_whole(self, file: Mapping[str, Any]) -> bool:
        path = self.path / str(file["name"])
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            return False
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == str(file["sha256"])

    def _refuse_strangers(self) -> None:
        foreign = [entry.name for entry in self.path.iterdir() if not self._is_ours(entry.name)]
        if foreign:
            raise ResumeError(
                f"{str(self.path)!r} holds {foreign[0]!r}, which is no part of a run. Name an empty folder."
            )

    def _is_ours(self, name: str) -> bool:
        return name in (manifest.NAME, REPORT, _LOCK) or _OURS.fullmatch(name) is not None


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with the parts of another run.

    Raises:
        ResumeError: naming what has changed.
    """
    changed = differences(before, now)
    if changed:
        raise ResumeError(
            f"{str(folder)!r} holds parts of a run that was not this one: {'. '.join(changed)}. Name another folder, "
            "or give restart=True (--restart) to remove those parts and begin anew."
        )


def _locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise FolderInUseError(
                f"{str(path.parent)!r} is being written to by another run (process {holder}). Wait for it, or name "
                "another folder."
            ) from None
        # Whoever held it before may have removed it between our opening and our lock.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> SinkError:
    return SinkError(
        f"{str(path)!r} cannot be written: {error.strerror or error}. The parts before it are whole; make room, and "
        "call again to go on from there."
    )
