"""Folders of pictures: a row is one file, with its path and its bytes as they lie on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from modelserve.dataset.sources.contract import Chunk, Source, Wanted
from modelserve.dataset.sources.location import File

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
#: The columns of a folder of pictures.
PATH, IMAGE = "path", "image"
# Pictures are large: a chunk is ended by its bytes, too.
_CHUNK_BYTES = 8 << 20


class PictureSource(Source):
    """Pictures by path; decoded where the model's input is made of them."""

    schema = pa.schema([pa.field(PATH, pa.string()), pa.field(IMAGE, pa.binary())])
    keeps: Sequence[str] = (PATH,)

    def __init__(self, files: Sequence[File]) -> None:
        self._files = files
        self.rows = len(files)
        self.locations = [file.path for file in files]

    @property
    def identity(self) -> Mapping[str, Any]:  # type: ignore[override]  # made of its files whenever it is asked for
        files = [{"path": file.path, "size": file.size_bytes, "version": file.version} for file in self._files]
        return {"kind": "pictures", "files": files}

    def chunks(self, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        at = start
        while at < len(self._files):
            refused: dict[int, str] = {}
            some: list[dict[str, Any]] = []
            held = 0
            for file in self._files[at : at + chunk_rows]:
                content = self._content(file, len(some), refused) if IMAGE in wanted.columns else None
                some.append({PATH: file.path, IMAGE: content})
                held += len(content or b"")
                if held > _CHUNK_BYTES:
                    break
            rows = pa.RecordBatch.from_pylist(some, self.schema).select(list(wanted.columns))
            yield Chunk(rows, "pictures", at, refused)
            at += len(some)

    @staticmethod
    def _content(file: File, number: int, refused: dict[int, str]) -> bytes | None:
        try:
            with file.open() as stream:
                content: bytes = stream.read()
                return content
        except OSError as error:
            refused[number] = f"{file.path!r} cannot be read: {error}."
            return None
