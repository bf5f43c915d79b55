"""JSON lines, streamed both ways: each line an instance, each answer a line, in order, while the body still comes.

body ─► lines ─► up to so many under way ─► answers in order ─► chunks

A line that cannot be answered gets {"error": ..., "code": ...} in its place and stops nobody. Lines that say which row
of a data set they are (`batches`) are answered several at once, and their answers wait for the end of the body: batch
services send everything before they read anything, and would wait for ever for who waits for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import orjson

from modelserve.errors import ModelServeError, OverloadedError, WireError
from modelserve.runtime.server.formats import batches, rows
from modelserve.runtime.server.formats.question import Described, Question
from modelserve.runtime.server.http.body import BodyStream
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.models.served import ServedModel

LINES = b"application/jsonl"
KINDS = frozenset({LINES, b"application/jsonlines", b"application/x-ndjson", b"application/x-jsonlines"})
_UNDER_WAY = 64
_TRIES = 100


async def answers(request: Request, served: ServedModel, longest_line: int) -> AsyncIterator[bytes]:
    """The answers to the lines of a body, each with its line break.

    Args:
        longest_line: Bytes of the longest line that is read.
    """
    held: list[bytes] = []
    async for answer in _as_they_come(request, served, longest_line):
        if held or batches.is_row(answer):
            held.append(answer)
        else:
            yield answer
    for answer in held:
        yield answer


async def _as_they_come(request: Request, served: ServedModel, longest_line: int) -> AsyncIterator[bytes]:
    stream = request.stream
    assert stream is not None
    under_way: deque[asyncio.Task[bytes]] = deque()
    try:
        async for lines in _together(_lines(stream, longest_line)):
            under_way.append(asyncio.ensure_future(_answers(lines, served, request)))
            # What is ready goes out at once; beyond the bound the oldest is waited for.
            while under_way and (len(under_way) >= _UNDER_WAY or under_way[0].done()):
                yield await under_way.popleft()
            if stream.is_empty:
                while under_way:
                    yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    except WireError as error:  # the body itself: what was whole has its answers, then the reason
        while under_way:
            yield await under_way.popleft()
        yield _failure(error)
    finally:
        for task in under_way:
            task.cancel()


async def _lines(stream: BodyStream, longest: int) -> AsyncIterator[list[bytes]]:
    """The lines of a body as far as they have come."""
    rest = bytearray()
    while part := await stream.read():
        *whole, last = part.split(b"\n")
        found = []
        for piece in whole:
            found.append(bytes(rest + piece).strip())
            rest.clear()
        yield [line for line in found if line]
        rest += last
        if len(rest) > longest:
            raise WireError(f"A line is longer than {longest} bytes. Send shorter ones.")
    if line := bytes(rest).strip():
        yield [line]


async def _together(come: AsyncIterator[list[bytes]]) -> AsyncIterator[list[bytes]]:
    """Lines that are answered at once: rows of a data set by many, all others one by one."""
    async for lines in come:
        most = batches.MOST_ROWS if lines and all(map(batches.is_row, lines)) else 1
        for start in range(0, len(lines), most):
            yield lines[start : start + most]


async def _answers(lines: list[bytes], served: ServedModel, request: Request) -> bytes:
    if not batches.is_row(lines[0]):
        return await _answer(lines[0], served, request)
    found = await batches.answers(lines, lambda read: served.ask(read, request))
    return b"\n".join([*found, b""])


async def _answer(line: bytes, served: ServedModel, request: Request) -> bytes:
    def read(model: Described) -> Question[Response]:
        return rows.read_instance(line, model)

    try:
        for _ in range(_TRIES):
            try:
                response = await served.ask(read, request)
                break
            except OverloadedError as error:
                # The sender is held back by the stream itself, and need not hear of it.
                await asyncio.sleep(min(error.retry_after_s, 1.0))
        else:
            response = await served.ask(read, request)
    except ModelServeError as error:
        return _failure(error)
    body = response.body
    assert isinstance(body, bytes)
    return body + b"\n"


def _failure(error: ModelServeError) -> bytes:
    text = str(error).encode("utf-8", "replace").decode()
    return orjson.dumps({"error": text, "code": error.code}) + b"\n"
