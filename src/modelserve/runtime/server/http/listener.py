"""The listening socket, and what all its connections share: memory, limits, and a look at the clock."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

from modelserve.errors import ConfigError
from modelserve.runtime.server.http.connection import Connection
from modelserve.runtime.server.http.intake import Application
from modelserve.runtime.server.http.limits import Limits
from modelserve.runtime.server.http.outbox import Outbox

_SCRATCH_BYTES = 256 << 10
_BACKLOG = 2048
_TICK_S = 1.0


class Listener:
    """Accepts connections and lets them go. Lives in one event loop.

    Attributes:
        scratch: Where every connection's bytes arrive: they are looked at before the next ones are read.
        draining: Whether connections are to end with the answer under way.
        now: The monotonic clock, as of the last second.
    """

    def __init__(self, application: Application, limits: Limits) -> None:
        self.application = application
        self.limits = limits
        self.scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self.outbox = Outbox()
        self.draining = False
        self.now = time.monotonic()
        self._bodies_bytes = 0
        self._connections: dict[Connection, None] = {}
        self._servers: list[asyncio.Server] = []
        self._ticker: asyncio.TimerHandle | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Take connections from now on; returns the port, which the system chooses for 0.

        Raises:
            ConfigError: the address is taken or is none of this machine's.
        """
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(lambda: Connection(self), host, port, backlog=_BACKLOG, ssl=tls)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"Cannot listen on {host}:{port} ({error}). Choose another port or address.") from error
        for listening in server.sockets:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._servers.append(server)
        if self._ticker is None:
            self._tick()
        return int(server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def drain(self, timeout_s: float) -> None:
        """Take no more connections; return when those that are open have had their answers, or the time is over."""
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close_idle()
        end = time.monotonic() + timeout_s
        while self._connections and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Let go of everything now."""
        for server in self._servers:
            server.close()
        if self._ticker is not None:
            self._ticker.cancel()
        for connection in list(self._connections):
            connection.abort()

    # What connections call.

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more."""
        if len(self._connections) >= self.limits.connections or self.draining:
            return False
        self._connections[connection] = None
        return True

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def reserve(self, size_bytes: int) -> bool:
        """Have room for so much more of bodies (less, where it is below 0)."""
        if size_bytes > 0 and self._bodies_bytes + size_bytes > self.limits.bodies_bytes:
            return False
        self._bodies_bytes += size_bytes
        return True

    def _tick(self) -> None:
        self.now = time.monotonic()
        for connection in list(self._connections):
            connection.check(self.now)
        self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
