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
        Bundle.open(folder)
        return settle(folder, into)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _files(bundle: Bundle) -> Iterator[Path]:
    for name in sorted((MANIFEST, *bundle.manifest.files, *bundle.manifest.beside)):
        yield bundle.path / name


def _extract(stream: IO[bytes], folder: Path) -> None:
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for count, entry in enumerate(archive):
                if not entry.isreg() or Path(entry.name).name != entry.name or count >= _MAX_FILES:
                    raise ForeignBundleError(f"The archive holds {entry.name!r}, which no bundle holds.")
                content = archive.extractfile(entry)
                assert content is not None
                with (folder / entry.name).open("xb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError) as error:
        raise DamagedBundleError(f"The archive cannot be read ({error}). Copy it again.") from error
    except FileExistsError as error:
        raise ForeignBundleError(f"The archive holds a file twice ({error.filename!r}).") from error
