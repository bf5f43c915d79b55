"""aiohttp on uvloop."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web
from answering import BINARY, Answering


async def main() -> None:
    answering = Answering()

    async def handle(request: web.Request) -> web.Response:
        binary = request.content_type == BINARY.decode()
        return web.Response(body=await answering.answer(await request.read(), binary=binary))

    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/", handle)
    await web._run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    uvloop.run(main())
