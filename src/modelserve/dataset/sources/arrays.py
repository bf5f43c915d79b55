""".npy and .npz: arrays on disk, mapped and read a few rows at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from modelserve.dataset.sources.contract import Chunk, Wanted
from modelserve.dataset.sources.location import File
from modelserve.dataset.tables import arrow_from_array
from modelserve.errors import SourceError
from modelserve.tensors import Array

#: The name of the only column of a .npy file.
COLUMN = "x"


class NumpyFormat:
    """One array, or several by name; the first axis counts the rows."""

    name = "numpy"
    is_typed = True

    def schema(self, file: File) -> Any:
        return pa.schema([pa.field(name, arrow_from_array(array[:1]).type) for name, array in _arrays(file).items()])

    def rows(self, file: File) -> int:
        counts = {name: len(array) for name, array in _arrays(file).items()}
        if len(set(counts.values())) != 1:
            raise SourceError(f"{file.path!r} holds arrays of different lengths: {counts}. Give each the same rows.")
        return next(iter(counts.values()))

    def chunks(self, file: File, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        arrays = _arrays(file)
        for at in range(start, self.rows(file), chunk_rows):
            columns = [arrow_from_array(np.array(arrays[name][at : at + chunk_rows])) for name in wanted.columns]
            yield Chunk(pa.RecordBatch.from_arrays(columns, names=list(wanted.columns)), file.path, at)


def _arrays(file: File) -> Mapping[str, Array]:
    if file.suffix == ".npz":
        found = dict(_from_archive(file))
    elif file.filesystem is None:
        found = {COLUMN: np.load(file.path, mmap_mode="r", allow_pickle=False)}
    else:
        with file.open() as stream:
            found = {COLUMN: np.load(stream, allow_pickle=False)}
    for name, array in found.items():
        if not array.ndim:
            raise SourceError(f"{file.path!r} holds a single value {name!r}. Give an array with a row for each answer.")
    return found


def _from_archive(file: File) -> Iterator[tuple[str, Array]]:
    """The arrays of an archive; those that are stored without compression are mapped where they lie."""
    with file.open() as stream, zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        stored = np.load(stream, allow_pickle=False)
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            is_plain = entry.compress_type == zipfile.ZIP_STORED and file.filesystem is None
            yield name, _mapped(file, archive, entry) if is_plain else stored[name]


def _mapped(file: File, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(member)
        header_bytes = member.tell()
    with file.open() as stream:
        # The local header's name and extra field may differ in length from those of the directory.
        stream.seek(entry.header_offset + 26)
        lengths = stream.read(4)
    at = entry.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    if dtype.hasobject:
        raise SourceError(f"{file.path!r} holds Python objects in {entry.filename!r}, which are never unpickled.")
    return np.memmap(file.path, dtype, "r", at + header_bytes, shape, "F" if is_fortran else "C")
