"""asyncio.Protocol on httptools and uvloop."""

from __future__ import annotations

import asyncio
import sys

import httptools
import uvloop
from answering import BINARY, Answering


class Connection(asyncio.Protocol):
    """One connection; requests are answered one after the other."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._parser = httptools.HttpRequestParser(self)
        self._parts: list[bytes] = []
        self._binary = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._binary = value == BINARY

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        body = b"".join(self._parts)
        self._parts = []
        self._task = asyncio.ensure_future(self._respond(body))

    async def _respond(self, body: bytes) -> None:
        answer = await self._answering.answer(body, binary=self._binary)
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))


async def main() -> None:
    answering = Answering()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(answering), "127.0.0.1", int(sys.argv[1]), backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
