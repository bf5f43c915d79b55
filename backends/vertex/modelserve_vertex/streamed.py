"""An answer that comes in pieces, put together; nothing of it is believed before its last byte is here.

    content type ──► the header's length ──► header ──► the body's length

So an answer that ends too early is seen, also where the connection says that all is well, and one that is too large is
refused before it fills the memory.
"""

from __future__ import annotations

import httpx

from modelserve.backend import Reply
from modelserve.backend.oip import reply, sized_header
from modelserve.errors import BackendError, InputError, WireError
from modelserve.wire import reply_layout
from modelserve_vertex.limits import STREAMED_BYTES


async def joined(answer: httpx.Response, doing: str) -> Reply:
    """The reply in a successful answer.

    Raises:
        BackendError: it breaks off.
        InputError: it is larger than what is taken at once.
        WireError: it is no reply, or more follows it.
    """
    coming = _Coming(answer.headers.get("content-type", ""), doing)
    try:
        async for piece in answer.aiter_bytes():
            coming.take(piece)
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        raise coming.broken_off() from error
    return coming.reply()


class _Coming:
    """What is here of one answer.

    Args:
        doing: What was asked, for errors.
    """

    def __init__(self, media_type: str, doing: str) -> None:
        self._header_length = sized_header(media_type)
        self._doing = doing
        self._pieces: list[bytes] = []
        self._size = 0
        self._announced: int | None = None

    def take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._announced is None:
            self._announced = self._length()
        if max(self._size, self._announced or 0) > STREAMED_BYTES:
            raise InputError(
                f"{self._doing}: the answer has more than {STREAMED_BYTES} bytes, the most that is taken at once. "
                "Send fewer rows at once; a data set of any size goes through predict_dataset."
            )
        if self._announced is not None and self._size > self._announced:
            raise WireError(f"{self._doing}: the answer goes on after the {self._announced} bytes that it announced.")

    def reply(self) -> Reply:
        if self._header_length is not None and self._size != self._announced:
            raise self.broken_off()
        return reply(b"".join(self._pieces), self._header_length)

    def broken_off(self) -> BackendError:
        whole = "" if self._announced is None else f" of {self._announced}"
        return BackendError(
            f"{self._doing}: the answer broke off after {self._size}{whole} bytes. Ask again; modelserve sends nothing "
            "twice by itself."
        )

    def _length(self) -> int | None:
        """Of the whole answer, once its header is here."""
        told = self._header_length
        if told is None or not told.isdecimal() or self._size < int(told):
            return None
        return int(told) + reply_layout(b"".join(self._pieces)[: int(told)]).body_bytes
