"""Files of one format, one after the other, as one source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa

from modelserve.dataset.sources.contract import Chunk, Source, Wanted
from modelserve.dataset.sources.location import File
from modelserve.errors import ModelServeError, SourceError


class Format(Protocol):
    """How files of one kind are read.

    Attributes:
        is_typed: Whether columns have types; otherwise cells are text, and read as what is wanted.
    """

    name: str
    is_typed: bool

    def schema(self, file: File) -> Any:
        """The columns of a file, as a `pyarrow.Schema`."""
        ...

    def rows(self, file: File) -> int | None:
        """How many rows it has, where that is known without reading it."""
        ...

    def chunks(self, file: File, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        """Its rows from number `start` on; from the first where `rows` does not tell how many there are."""
        ...


class FileSource(Source):
    """Files of one format in their order."""

    def __init__(self, files: Sequence[File], form: Format, *, keeps: Sequence[str] = ()) -> None:
        self._files = files
        self._format = form
        self._counts: list[int | None] = []
        self.is_typed = form.is_typed
        self.keeps = keeps
        with reading(files[0]):
            self.schema = form.schema(files[0])
        for file in files:
            with reading(file):
                self._counts.append(form.rows(file))
        known = [count for count in self._counts if count is not None]
        self.rows = sum(known) if len(known) == len(files) else None
        self.locations = [file.path for file in files]

    @property
    def identity(self) -> Mapping[str, Any]:  # type: ignore[override]  # made of its files whenever it is asked for
        files = [{"path": file.path, "size": file.size_bytes, "version": file.version} for file in self._files]
        return {"kind": self._format.name, "files": files}

    def chunks(self, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        left = start
        for file, count in zip(self._files, self._counts, strict=True):
            if count is not None and left >= count:
                left -= count
                continue
            seek = 0 if count is None else left
            left -= seek
            for chunk in self._of(file, wanted, seek, chunk_rows):
                skipped = min(left, chunk.rows.num_rows)
                left -= skipped
                if skipped < chunk.rows.num_rows:
                    yield chunk.after(skipped)

    def _of(self, file: File, wanted: Wanted, start: int, chunk_rows: int) -> Iterator[Chunk]:
        with reading(file):
            if file is not self._files[0]:
                self._check_columns(file, self._format.schema(file), wanted)
            yield from self._format.chunks(file, wanted, start=start, chunk_rows=chunk_rows)

    def _check_columns(self, file: File, schema: Any, wanted: Wanted) -> None:
        """The columns that are read must be those of the first file."""
        missing = [name for name in wanted.columns if name not in schema.names]
        if missing:
            raise SourceError(
                f"{file.path!r} lacks the column(s) {', '.join(map(repr, missing))} that the first file has; it has "
                f"{', '.join(map(repr, schema.names))}. Give files with the same columns, or leave this one out."
            )
        for name in wanted.columns if self.is_typed else ():
            expected, found = self.schema.field(name).type, schema.field(name).type
            if not expected.equals(found):
                raise SourceError(
                    f"{file.path!r} has column {name!r} as {found}, the first file as {expected}. Give files with the "
                    "same types, or run them apart."
                )


@contextmanager
def reading(file: File) -> Iterator[None]:
    """Turn what goes wrong with a file into one clear error."""
    try:
        yield
    except ModelServeError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{file.path!r} cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
