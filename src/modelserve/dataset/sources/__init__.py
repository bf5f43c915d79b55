"""Rows from wherever they are: files of any kind, tables in memory, iterators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelserve.dataset.sources.arrays import NumpyFormat
from modelserve.dataset.sources.columnar import ArrowFormat, ParquetFormat
from modelserve.dataset.sources.contract import Chunk, Source, Wanted
from modelserve.dataset.sources.files import FileSource, Format
from modelserve.dataset.sources.location import File, locate
from modelserve.dataset.sources.memory import TableSource, as_table
from modelserve.dataset.sources.pictures import SUFFIXES, PictureSource
from modelserve.dataset.sources.stream import StreamSource
from modelserve.dataset.sources.text import CsvFormat, JsonLinesFormat
from modelserve.errors import SourceError

__all__ = ["Chunk", "Source", "Wanted", "open_source"]

_FORMATS: Mapping[str, type[Format]] = {
    ".parquet": ParquetFormat,
    ".pq": ParquetFormat,
    ".arrow": ArrowFormat,
    ".arrows": ArrowFormat,
    ".feather": ArrowFormat,
    ".ipc": ArrowFormat,
    ".csv": CsvFormat,
    ".jsonl": JsonLinesFormat,
    ".ndjson": JsonLinesFormat,
    ".npy": NumpyFormat,
    ".npz": NumpyFormat,
}


def open_source(given: Any) -> Source:
    """The rows that are meant.

    Args:
        given: A path, a folder, a pattern or a URL that fsspec opens, or several of them; an Arrow table, record batch
            or reader; a pandas or polars frame; an array or a dict of columns; an iterator of any of these or of rows
            as dicts.

    Raises:
        SourceError: there is nothing there, it is of no known kind, or it cannot be read.
    """
    places = _places(given)
    if places is not None:
        return _from_files(locate(places))
    table = as_table(given)
    if table is not None:
        return TableSource(table, type(given).__name__)
    if isinstance(given, pa.RecordBatchReader) or (
        isinstance(given, Iterable) and not isinstance(given, bytes | Mapping)
    ):
        return StreamSource(given)
    raise SourceError(
        f"A {type(given).__name__} is no source of rows. Give a path, a pattern, a URL, a table, a frame, an array, or "
        "an iterator of them."
    )


def _places(given: Any) -> list[str] | None:
    if isinstance(given, str | Path):
        return [str(given)]
    is_several = isinstance(given, Sequence) and given and all(isinstance(place, str | Path) for place in given)
    return [str(place) for place in given] if is_several else None


def _from_files(files: Sequence[File]) -> Source:
    pictures = [file for file in files if file.suffix in SUFFIXES]
    if pictures and not any(file.suffix in _FORMATS for file in files):
        # Beside pictures lie notes and thumbnails' indexes; what is no picture is not meant.
        return PictureSource(pictures)
    kinds = {_FORMATS.get(file.suffix) for file in files}
    if None in kinds:
        odd = next(file for file in files if file.suffix not in _FORMATS)
        raise SourceError(
            f"{odd.path!r} is of no known kind; known are {', '.join(_FORMATS)}, and pictures "
            f"({', '.join(sorted(SUFFIXES))}). Name the files that are meant by a pattern such as '*.parquet'."
        )
    if len(kinds) > 1:
        raise SourceError(
            f"The files are of several kinds ({', '.join(sorted({file.suffix for file in files}))}). Name those of one "
            "kind by a pattern such as '*.parquet'."
        )
    form = kinds.pop()
    assert form is not None
    return FileSource(files, form())
