"""Bundles as folders: written whole or not at all, checked when opened, never edited.

<digest>/
model.onnx         the graph
model.onnx.data    its weights, where they lie beside it, so that processes can map one copy
manifest.json      what it is
example.npz        inputs that it takes
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelserve.bundle.manifest import FileEntry, Manifest, Origin, Step
from modelserve.bundle.weights import MODEL, WEIGHTS, save_model
from modelserve.errors import BundleError, DamagedBundleError, ForeignBundleError
from modelserve.home import home
from modelserve.tensors import Array, Signature, Tensors

if TYPE_CHECKING:
    from onnx import ModelProto

MANIFEST = "manifest.json"
EXAMPLE = "example.npz"
_OWN_NAMES = {MODEL, WEIGHTS, MANIFEST, EXAMPLE}

_CHUNK_BYTES = 1 << 20
_SETTLE_TRIES = 100
# What a rename answers when something stands in its way.
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A portable model on disk."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """Names the model everywhere: 64 lower-case hex digits."""
        return self.manifest.digest

    @property
    def signature(self) -> Signature:
        return self.manifest.signature

    @property
    def rows_independent(self) -> bool:
        return self.manifest.rows_independent

    @property
    def model_path(self) -> Path:
        return self.path / MODEL

    @property
    def weights_path(self) -> Path | None:
        """The weights' own file, where they are large enough to lie beside the model's."""
        path = self.path / WEIGHTS
        return path if path.exists() else None

    @property
    def size_bytes(self) -> int:
        """Of the model's files together."""
        return self.manifest.size_bytes

    def example(self) -> dict[str, Array]:
        """Inputs that the model takes, by name; at least one row."""
        return read_example(self.path / EXAMPLE)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Bundle:
        """The bundle in the folder `path`.

        Args:
            verify: Compare every file with its digest. Without it only presence and sizes are checked.

        Raises:
            ForeignBundleError: there is no bundle, or its manifest names a file outside of its folder.
            NewerBundleError: made by a newer modelserve.
            DamagedBundleError: a file is missing or was changed.
        """
        folder = Path(path)
        manifest_path = folder / MANIFEST
        if not manifest_path.is_file() or manifest_path.is_symlink():
            raise ForeignBundleError(f"{str(folder)!r} is not a bundle: it has no {MANIFEST} of its own.")
        manifest = Manifest.from_json(manifest_path.read_bytes())
        for name, entry in (*manifest.files.items(), *manifest.beside.items()):
            _check_file(folder, name, entry, verify=verify)
        if MODEL not in manifest.files:
            raise ForeignBundleError(f"{str(folder)!r} is not a bundle: its manifest names no {MODEL}.")
        return cls(folder, manifest)


def bundles_home() -> Path:
    """Where bundles lie when the caller names no folder."""
    return home() / "bundles"


def write(
    model: ModelProto,
    *,
    signature: Signature,
    origin: Origin,
    lineage: Sequence[Step],
    example: Tensors,
    rows_independent: bool = False,
    reports: Sequence[Mapping[str, Any]] = (),
    into: Path | None = None,
) -> Bundle:
    """Put a model on disk as a bundle.

    Args:
        into: The folder to create; by default one named by the digest under `bundles_home()`, where the same
            bundle is kept once.

    Raises:
        ForeignBundleError: `into` exists and is something else.
        BundleError: the disk is full or not writable; nothing is left behind.
    """
    parent = bundles_home() if into is None else into.absolute().parent
    with _writing(parent), _scratch(parent) as scratch:
        save_model(model, scratch)
        _save_example(example, scratch / EXAMPLE)
        names = [name for name in (MODEL, WEIGHTS) if (scratch / name).exists()]
        manifest = Manifest(
            signature=signature,
            origin=origin,
            lineage=tuple(lineage),
            files={name: file_entry(scratch / name) for name in names},
            beside={EXAMPLE: file_entry(scratch / EXAMPLE)},
            rows_independent=rows_independent,
            reports=tuple(reports),
        )
        (scratch / MANIFEST).write_bytes(manifest.to_json())
        place = into.absolute() if into is not None else parent / manifest.digest
        return settle(scratch, place)


def settle(scratch: Path, place: Path) -> Bundle:
    """Move a finished folder to its place; where the same bundle stands already, that one stays.

    Several processes may do so at once: each ends with the bundle in place.
    """
    made = Bundle.open(scratch, verify=False)
    strange = 0
    for _ in range(_SETTLE_TRIES):
        try:
            scratch.rename(place)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return Bundle(place, made.manifest)
        try:
            found = _standing(made, place)
            if found is not None:
                return found
            _clear(place)
        except ForeignBundleError:
            # Once, it may be another process between taking the old one away and putting its own there.
            # What is no bundle is the user's, and never removed.
            strange += 1
            if strange > 1:
                raise
    raise BundleError(f"{str(place)!r} is being replaced by other processes all the time. Try again.")


def _standing(made: Bundle, place: Path) -> Bundle | None:
    """What stands at `place`, if it is the bundle just made; None if it must make way: damaged, or older reports."""
    try:
        found = Bundle.open(place)
    except DamagedBundleError as error:
        if any(path.name not in _OWN_NAMES for path in place.glob("*")):
            raise ForeignBundleError(f"{str(place)!r} holds more than a bundle. Choose a new folder.") from error
        return None
    except FileNotFoundError:
        return None
    if found.digest != made.digest:
        raise ForeignBundleError(f"{str(place)!r} holds another bundle. Choose a new folder or remove that one.")
    return found if found.manifest.reports == made.manifest.reports else None


def _clear(place: Path) -> None:
    aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=".old-"))
    try:
        # Out of the way first and then removed, so that nobody meets half of it; open files stay readable.
        place.rename(aside / "bundle")
    except FileNotFoundError:
        return
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def file_entry(path: Path) -> FileEntry:
    """Digest and size of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return FileEntry(digest.hexdigest(), path.stat().st_size)


def read_example(path: Path) -> dict[str, Array]:
    """The arrays of an `.npz`, text as objects of type str; pickled ones are refused.

    Raises:
        DamagedBundleError: it cannot be read.
    """
    try:
        # Opened here, since numpy leaves the file open when it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedBundleError(f"The example {str(path)!r} cannot be read ({error}).") from error
    return {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in arrays.items()}


@contextlib.contextmanager
def _writing(parent: Path) -> Iterator[None]:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise BundleError(
            f"The bundle could not be written under {str(parent)!r}: {error.strerror or error}. "
            "Make room there, or name another folder (MODELSERVE_HOME is where bundles lie by default)."
        ) from error


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=".making-"))
    try:
        work = folder / "bundle"
        work.mkdir()
        yield work
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _save_example(example: Tensors, path: Path) -> None:
    # As numpy.savez writes it, which cannot take an input called "file" because of its own parameter.
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in example.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                storable = array.astype(str) if array.dtype.kind == "O" else array
                np.lib.format.write_array(file, storable, allow_pickle=False)


def _check_file(folder: Path, name: str, entry: FileEntry, *, verify: bool) -> None:
    path = folder / name
    if Path(name).name != name or name in {".", ".."} or path.is_symlink():
        raise ForeignBundleError(f"The manifest of {str(folder)!r} names {name!r}, which is not a file inside of it.")
    if not path.is_file():
        raise DamagedBundleError(f"{str(folder)!r} lacks the file {name!r}. Make or copy the bundle again.")
    found = file_entry(path) if verify else FileEntry(entry.sha256, path.stat().st_size)
    if found != entry:
        raise DamagedBundleError(f"{str(path)!r} is not what the manifest says. Make or copy the bundle again.")
