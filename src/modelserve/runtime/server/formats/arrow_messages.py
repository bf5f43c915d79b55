"""Whether an Arrow stream's buffers are compressed, seen from its messages alone, before anything is unfolded.

marker FFFFFFFF ─ size ─ Message{version, header type, header, body length} ─ body ─ marker ...
https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
"""

from __future__ import annotations

import struct

import flatbuffers.number_types as numbers
from flatbuffers.table import Table

from modelserve.errors import WireError

_MARKER = 0xFFFFFFFF
_MOST_MESSAGES = 100_000
_DICTIONARY, _RECORDS = 2, 3


def check_uncompressed(content: memoryview) -> None:
    """Refuse a stream with compressed buffers, and one that is no stream.

    Raises:
        WireError: which of the two.
    """
    data = bytes(content)
    at = 0
    for _ in range(_MOST_MESSAGES):
        if at + 8 > len(data):
            return
        marker, size = struct.unpack_from("<II", data, at)
        if marker != _MARKER:
            raise WireError(
                "The body is not an Arrow IPC stream. Write it with the stream format, not the file format."
            )
        if size == 0:
            return
        at += 8
        if at + size > len(data):
            raise WireError("The Arrow stream ends within a message.")
        try:
            compressed, body_bytes = _look(data[at : at + size])
        except (struct.error, IndexError, TypeError, ValueError) as error:
            raise WireError("The Arrow stream holds a message that cannot be read.") from error
        if compressed:
            raise WireError("The Arrow stream's buffers are compressed. Send them as they are, with Content-Encoding.")
        at += size + body_bytes
    raise WireError(f"The Arrow stream has more than {_MOST_MESSAGES} messages. Send larger batches.")


def _look(message: bytes) -> tuple[bool, int]:
    """Whether this message has compressed buffers, and the size of its body."""
    root = Table(message, struct.unpack_from("<I", message)[0])
    kind = _scalar(root, 1, numbers.Uint8Flags)
    body_bytes = _scalar(root, 3, numbers.Int64Flags)
    if not 0 <= body_bytes < 1 << 40:
        raise ValueError(f"a body of {body_bytes} bytes")
    if kind not in {_DICTIONARY, _RECORDS}:
        return False, body_bytes
    header = _child(root, 2)
    if kind == _DICTIONARY and header is not None:
        header = _child(header, 1)
    return header is not None and header.Offset(4 + 2 * 3) != 0, body_bytes


def _scalar(table: Table, slot: int, flags: type) -> int:
    offset = table.Offset(4 + 2 * slot)
    return int(table.Get(flags, table.Pos + offset)) if offset else 0


def _child(table: Table, slot: int) -> Table | None:
    offset = table.Offset(4 + 2 * slot)
    return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None
