"""Answers that are ready together leave together.

    answers of one turn of the event loop ──► outbox ──► one send after the other

A client that sleeps is woken by the first of them, and finds the others when it is awake; sent one by one, each would
wake it anew, which costs the sender more than writing the answer.
"""

from __future__ import annotations

import asyncio


class Outbox:
    """What all connections of one event loop have to send in this turn."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def put(self, transport: asyncio.Transport, content: bytes) -> None:
        """Send it at the end of this turn, behind all that was put before."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.send)
        self._waiting.append((transport, content))

    def send(self) -> None:
        """Send everything now."""
        waiting, self._waiting = self._waiting, []
        for transport, content in waiting:
            if not transport.is_closing():
                transport.write(content)
