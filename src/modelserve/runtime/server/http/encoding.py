"""Compressed bodies (`Content-Encoding`), unfolded within a bound."""

from __future__ import annotations

import zlib

from modelserve.errors import WireError

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_STEP_BYTES = 1 << 20


class TooLargeError(WireError):
    """A body unfolds to more than is taken."""

    code = "wire"


def decoded(body: bytes | memoryview, encoding: bytes, most_bytes: int) -> bytes | memoryview:
    """The body as it was before it was compressed.

    Raises:
        WireError: an encoding that is not known, or bytes that are not in it.
        TooLargeError: it unfolds to more than `most_bytes`, of which never more is held.
    """
    name = encoding.strip().lower()
    if name in {b"", b"identity"}:
        return body
    if name not in {b"gzip", b"x-gzip", b"deflate"}:
        shown = encoding[:40].decode("latin-1")
        raise WireError(f"The body is encoded as {shown!r}; gzip, deflate and identity are read.")
    try:
        return _inflated(memoryview(body), most_bytes)
    except zlib.error as error:
        raise WireError(f"The body is not {name.decode()} ({error}).") from error


def _inflated(rest: memoryview, most_bytes: int) -> bytes:
    parts: list[bytes] = []
    size_bytes = 0
    while rest:
        # A gzip file may be several one after the other.
        inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
        while rest and not inflater.eof:
            part = inflater.decompress(rest, _STEP_BYTES)
            rest = memoryview(inflater.unconsumed_tail or inflater.unused_data)
            size_bytes += len(part)
            if size_bytes > most_bytes:
                raise TooLargeError(f"The body unfolds to more than {most_bytes} bytes. Send less at once.")
            parts.append(part)
        if not inflater.eof:
            raise zlib.error("it ends too early")
    return b"".join(parts)
