"""Parquet and Arrow (Feather) files: columns with types, read a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from modelserve.dataset.sources.contract import Chunk, Wanted
from modelserve.dataset.sources.location import File
from modelserve.errors import SourceError

# What is read at once of each column of a local file, so that a large row group is never in memory as a whole.
_BUFFER_BYTES = 256 << 10


class ParquetFormat:
    """Row groups before `start` are not touched, columns that are not wanted neither."""

    name = "parquet"
    is_typed = True

    def schema(self, file: File) -> Any:
        with file.open() as stream:
            return pq.read_schema(stream).remove_metadata()

    def rows(self, file: File) -> int:
        with file.open() as stream:
            return int(pq.read_metadata(stream).num_rows)

    def chunks(self, file: File, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        # One large read for each column of a remote file, many small ones where a read costs little.
        settings = {"pre_buffer": True} if file.filesystem else {"pre_buffer": False, "buffer_size": _BUFFER_BYTES}
        with _opened(file) as stream, pq.ParquetFile(stream, **settings) as content:
            group, at = _group_of(content.metadata, start)
            groups = list(range(group, content.metadata.num_row_groups))
            batches = content.iter_batches(chunk_rows, row_groups=groups, columns=list(wanted.columns))
            for batch in batches:
                chunk = Chunk(batch.select(wanted.columns), file.path, at)
                at += batch.num_rows
                if at > start:
                    yield chunk.after(max(0, start - chunk.start))


def _opened(file: File) -> Any:
    # Arrow's own file lets go of the interpreter while it reads.
    return file.open() if file.filesystem else pa.OSFile(file.path)


def _group_of(metadata: Any, start: int) -> tuple[int, int]:
    """The row group that holds row `start`, and the number of its first row."""
    at = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if at + rows > start:
            return group, at
        at += rows
    return metadata.num_row_groups, at


class ArrowFormat:
    """Arrow files (Feather version 2) and Arrow streams."""

    name = "arrow"
    is_typed = True

    def schema(self, file: File) -> Any:
        with file.open() as stream, _reader(stream) as reader:
            return reader.schema.remove_metadata()

    def rows(self, file: File) -> int | None:
        with file.open() as stream, _reader(stream) as reader:
            if not hasattr(reader, "num_record_batches"):
                return None
            return int(sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches)))

    def chunks(self, file: File, wanted: Wanted, *, start: int, chunk_rows: int) -> Iterator[Chunk]:
        with file.open() as stream, _reader(stream) as reader:
            at = 0
            for batch in _batches(reader):
                for piece in cut(batch.select(list(wanted.columns)), chunk_rows):
                    chunk = Chunk(piece, file.path, at)
                    at += piece.num_rows
                    if at > start:
                        yield chunk.after(max(0, start - chunk.start))


def cut(batch: Any, rows: int) -> Iterator[Any]:
    """A record batch in pieces of at most so many rows."""
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _reader(stream: Any) -> Any:
    magic = stream.read(6)
    stream.seek(0)
    if magic == b"ARROW1":
        return ipc.open_file(stream)
    if magic[:4] == b"FEA1":
        raise SourceError("It is a Feather file of version 1, which is no Arrow file. Write it anew as version 2.")
    return ipc.open_stream(stream)


def _batches(reader: Any) -> Iterator[Any]:
    if not hasattr(reader, "num_record_batches"):
        yield from reader
        return
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)
