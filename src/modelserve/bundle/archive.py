"""A bundle as one tar: the same bundle always gives the same bytes."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from modelserve.bundle.store import MANIFEST, Bundle, settle
from modelserve.errors import DamagedBundleError, ForeignBundleError

_MODE = 0o644
_MAX_FILES = 64
_CHUNK_BYTES = 1 << 20


def pack(bundle: Bundle, into: IO[bytes]) -> None:
    """Write the bundle as an uncompressed tar: files in order of name, no times, no owners."""
    with tarfile.open(fileobj=into, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in _files(bundle):
            entry = tarfile.TarInfo(path.name)
            entry.size = path.stat().st_size
            entry.mode = _MODE
            with path.open("rb") as content:
                archive.addfile(entry, content)


def unpack(source: IO[bytes] | bytes, into: Path) -> Bundle:
    """Read a tar that `pack` wrote into the new folder `into`, and check it.

    Raises:
        ForeignBundleError: it holds anything but plain files of one folder.
        DamagedBundleError: it is cut short or a digest does not match.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    into.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=into.parent, prefix=".unpacking-"))
    try:
        folder = scratch / "bundle"
        folder.mkdir()
        _extract(stream, folder)
        _refuse_strangers(Bundle.open(folder))
        return settle(folder, into)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _files(bundle: Bundle) -> Iterator[Path]:
    for name in sorted((MANIFEST, *bundle.manifest.files, *bundle.manifest.beside)):
        yield bundle.path / name


def _extract(stream: IO[bytes], folder: Path) -> None:
    for count, entry in enumerate(_entries(stream)):
        if not entry.isreg() or Path(entry.name).name != entry.name or count >= _MAX_FILES:
            raise ForeignBundleError(f"The archive holds {entry.name!r}, which no bundle holds.")
        try:
            with (folder / entry.name).open("xb") as file:
                _copy(stream, file, entry.size)
        except (FileExistsError, IsADirectoryError) as error:
            raise ForeignBundleError(f"The archive holds {entry.name!r} twice, or it is no name of a file.") from error
        stream.read(-entry.size % tarfile.BLOCKSIZE)


def _entries(stream: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Each header; the content behind it is read by whoever asks for the next.

    Header by header, since `tarfile.open` also follows extensions that `pack` never writes: sparse files that
    grow on the disk, names of any length, sizes below zero.
    """
    while (block := _exactly(stream, tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
        try:
            entry = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise DamagedBundleError(f"The archive cannot be read ({error}). Copy it again.") from error
        if entry.size < 0 or entry.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
            raise ForeignBundleError(f"The archive holds {entry.name!r}, which is not a plain file.")
        yield entry


def _copy(stream: IO[bytes], into: IO[bytes], size_bytes: int) -> None:
    while size_bytes > 0:
        chunk = _exactly(stream, min(size_bytes, _CHUNK_BYTES))
        into.write(chunk)
        size_bytes -= len(chunk)


def _exactly(stream: IO[bytes], size_bytes: int) -> bytes:
    content = stream.read(size_bytes)
    if len(content) != size_bytes:
        raise DamagedBundleError("The archive is cut short. Copy it again.")
    return content


def _refuse_strangers(bundle: Bundle) -> None:
    strangers = {path.name for path in bundle.path.iterdir()} - {path.name for path in _files(bundle)}
    if strangers:
        raise ForeignBundleError(f"The archive holds {min(strangers)!r}, which its manifest does not name.")
