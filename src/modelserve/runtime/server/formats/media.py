"""Which format a body is in, by its `Content-Type`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from modelserve.errors import WireError
from modelserve.runtime.server.formats import npy, oip, rows, tables
from modelserve.runtime.server.formats.question import Described, Question
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.wire import Reply

# Above this size reading may take milliseconds, for which no other request should wait.
_ASIDE_FROM_BYTES = 256 << 10

#: OIP with the length of its JSON part in the type itself, as Triton has it on SageMaker.
SIZED = b"application/vnd.sagemaker-triton.binary+json"

Asked: TypeAlias = Question[Response]
Reader: TypeAlias = Callable[[Request, Described], Asked]


def _read_json_or_oip(request: Request, model: Described) -> Asked:
    """JSON in one of the shapes of `rows`, or an infer request of the Open Inference Protocol."""
    length = _length_in_type(request)
    if length is not None:
        return _answered_alike(oip.read(request.body, length, model))
    if oip.HEADER_LENGTH in request.headers:
        return oip.read(request.body, request.headers[oip.HEADER_LENGTH], model)
    return oip.read(request.body, None, model) if rows.is_oip(request.body) else rows.read(request.body, model)


_READERS: dict[bytes, Reader] = {
    SIZED: _read_json_or_oip,
    b"application/json": _read_json_or_oip,
    b"application/octet-stream": _read_json_or_oip,
    b"application/x-www-form-urlencoded": _read_json_or_oip,  # what curl says of every body unless it is told
    npy.NPY: lambda request, model: npy.read(request.body, model),
    b"application/npy": lambda request, model: npy.read(request.body, model),
    tables.CSV: lambda request, model: tables.read_csv(request.body, model),
    b"application/csv": lambda request, model: tables.read_csv(request.body, model),
    tables.ARROW: lambda request, model: tables.read_arrow(request.body, model),
    tables.PARQUET: lambda request, model: tables.read_parquet(request.body, model),
    b"application/x-parquet": lambda request, model: tables.read_parquet(request.body, model),
}


def _length_in_type(request: Request) -> bytes | None:
    """The length of the JSON part as a parameter of the media type, for places that let no other header pass."""
    for parameter in request.headers.get(b"content-type", b"").split(b";")[1:]:
        name, _, value = parameter.strip().partition(b"=")
        if name.lower() == b"json-header-size":
            return value.strip()
    return None


def _answered_alike(question: Asked) -> Asked:
    """The same question, its answer's length told in the media type too."""

    def answer(reply: Reply) -> Response:
        response = question.answer(reply)
        for name, value in response.headers:
            if name == oip.HEADER_LENGTH:
                response.content_type = b"%b;json-header-size=%b" % (SIZED, value)
        return response

    return question._replace(answer=answer)


def media_type(request: Request) -> bytes:
    """The request's media type, without its parameters; JSON where it says nothing."""
    return request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() or b"application/json"


def reader(request: Request) -> Reader:
    """What reads this body.

    Raises:
        UnsupportedMediaError: nothing does.
    """
    found = _READERS.get(media_type(request))
    if found is None:
        known = ", ".join(kind.decode() for kind in _READERS)
        shown = media_type(request)[:80].decode("latin-1")
        raise UnsupportedMediaError(f"A body of type {shown!r} is not read here; {known} are.")
    return found


def read(request: Request, model: Described, by: Reader) -> Asked | Awaitable[Asked]:
    """The question in a body; a large one is read in another thread."""
    if len(request.body) < _ASIDE_FROM_BYTES:
        return by(request, model)
    return asyncio.get_running_loop().run_in_executor(None, by, request, model)


class UnsupportedMediaError(WireError):
    """A body in a format that is not read."""

    code = "wire"
