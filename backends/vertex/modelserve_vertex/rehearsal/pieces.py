"""An answer that comes in pieces, on its way through the door.

Its head has gone by the time something goes wrong, so all that the caller sees then is that it ends too early.
Google states 10 MB for answers and says nothing of streamed ones: here the limit is kept for them too.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TypeVar

import httpx
from google.api_core import exceptions as google_errors

from modelserve.standin.loopback import Answered, Broken, Pieces

T = TypeVar("T")


def begun(answered: Answered, most_bytes: int) -> Answered:
    """A container's answer, whose pieces are passed on as they come.

    Raises:
        InvalidArgument: it says that it will have more bytes; pieces raise it where it does not.
    """
    assert answered.pieces is not None
    try:
        require_within(int(answered.headers.get("content-length", 0)), most_bytes)
    except google_errors.InvalidArgument:
        answered.pieces.close()
        raise
    return replace(answered, pieces=_passed_on(answered.pieces, most_bytes))


def require_within(size_bytes: int, most_bytes: int) -> None:
    """Refuse an answer of that size where it is larger than answers may be."""
    if size_bytes > most_bytes:
        raise google_errors.InvalidArgument(f"Response payload size exceeds the limit: {most_bytes} bytes.")


def broken_off(pieces: Generator[T, None, None]) -> Generator[T, None, None]:
    """The first piece, and no more."""
    yield next(pieces)
    pieces.close()
    raise google_errors.ServiceUnavailable("The model server broke off: ordered by a test.")


def cutting(pieces: Pieces) -> Pieces:
    """For HTTP, which has no word for it: where they go wrong, the connection is cut."""
    try:
        yield from pieces
    except google_errors.GoogleAPICallError as error:
        raise Broken from error


def _passed_on(pieces: Pieces, most_bytes: int) -> Pieces:
    """The first piece in two: where one ends means nothing, and nobody may rely on it."""
    size = 0
    try:
        for piece in pieces:
            middle = 0 if size else len(piece) // 2
            size += len(piece)
            require_within(size, most_bytes)
            yield from filter(None, (piece[:middle], piece[middle:]))
    except httpx.TransportError as error:
        raise google_errors.ServiceUnavailable(f"The model server broke off: {error}") from error
    finally:
        pieces.close()
