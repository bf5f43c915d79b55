"""Parquet within bounds: what a file says of itself is looked at first, what can unfold without bound is refused.

A value that repeats costs a Parquet file next to nothing, so rows and text are counted as they will be in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelserve.errors import WireError
from modelserve.runtime.server.formats.table import check_size

# Snappy makes at most some twenty bytes of one; the others thousands.
_CODECS = {"UNCOMPRESSED", "SNAPPY"}
_LONGEST_FIXED_BYTES = 16
_MOST_ROW_GROUPS = 10_000


def batches(source: Any) -> Iterator[Any]:
    """The record batches of a Parquet file; text stays a dictionary and indices.

    Args:
        source: What pyarrow can read from.

    Raises:
        WireError: it unfolds to more than is taken, or could.
    """
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(source)
    source.seek(0)
    _check(metadata)
    words = [
        metadata.schema.column(at).path
        for at in range(metadata.num_columns)
        if metadata.schema.column(at).physical_type == "BYTE_ARRAY"
    ]
    file = pq.ParquetFile(source, metadata=metadata, read_dictionary=words)
    rows = 0
    for batch in file.iter_batches():
        rows += batch.num_rows
        check_size(rows, batch.num_columns)
        yield batch


def _check(metadata: Any) -> None:
    check_size(metadata.num_rows, metadata.num_columns)
    if metadata.num_row_groups > _MOST_ROW_GROUPS:
        raise WireError(f"The file has {metadata.num_row_groups} row groups, more than {_MOST_ROW_GROUPS}.")
    for at in range(metadata.num_columns):
        column = metadata.schema.column(at)
        too_long = column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > _LONGEST_FIXED_BYTES
        if column.max_repetition_level or too_long:
            raise WireError(f"Column {column.path!r} holds lists or long bytes, which are not read from Parquet.")
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            codec = metadata.row_group(group).column(at).compression
            if codec not in _CODECS:
                raise WireError(
                    f"The file is compressed by {codec}, which can unfold without bound. Write it with snappy or "
                    "uncompressed; Content-Encoding: gzip may compress the whole."
                )
