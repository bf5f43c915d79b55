"""A proxy on loopback by which Azure's real names lead to the stand-in, and every other name leads nowhere.

    client ──CONNECT management.azure.com:443──► proxy ──► 127.0.0.1:port of the stand-in   (TLS from end to end)
           ──CONNECT anything.else:443─────────► 403, and noted in `refused`

TLS goes from end to end: the proxy sees names and no content.
"""

from __future__ import annotations

import asyncio
import fnmatch
import threading
from collections.abc import Sequence

_HEAD_BYTES = 16 << 10
_PIECE_BYTES = 256 << 10
_START_S = 10.0


class Proxy:
    """Listens on 127.0.0.1 until it is closed.

    Args:
        names: Patterns of host names that are let through.
        port: Where all of them lead to.

    Attributes:
        refused: Hosts that somebody asked for and that are not Azure's; a rehearsal that worked has none.
        seen: Hosts that were let through.
    """

    def __init__(self, names: Sequence[str], port: int) -> None:
        self._names = names
        self._target = port
        self.refused: list[str] = []
        self.seen: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="azureml-rehearsal-proxy", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_S):
            raise RuntimeError("The rehearsal's proxy did not start.")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Break off all connections. Quiet when called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_BYTES))
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(_gone(self._loop))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, authority, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            host = authority.rpartition(":")[0].lower()
            if method != "CONNECT" or not any(fnmatch.fnmatch(host, name) for name in self._names):
                self.refused.append(authority)
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            self.seen.add(host)
            await self._joined(reader, writer)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # the client went away, or spoke no HTTP
        except asyncio.CancelledError:
            return  # the proxy is closed; asyncio's own streams would report it as a failure
        finally:
            writer.close()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ways = [asyncio.ensure_future(_pump(reader, back)), asyncio.ensure_future(_pump(there, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            back.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()


async def _gone(loop: asyncio.AbstractEventLoop) -> None:
    others = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    await asyncio.gather(*others, return_exceptions=True)
