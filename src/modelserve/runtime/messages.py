"""Small typed messages between the pool and its processes: JSON objects, with file descriptors beside them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

_LENGTH_BYTES = 4
_MAX_BYTES = 4 << 20
_MAX_DESCRIPTORS = 16


def send(connection: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message; the descriptors stay open here, the other side gets its own."""
    content = json.dumps(message).encode()
    framed = len(content).to_bytes(_LENGTH_BYTES, "little") + content
    if descriptors:
        sent = socket.send_fds(connection, [framed], list(descriptors))
        framed = framed[sent:]
    connection.sendall(framed)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Wait for one message.

    Raises:
        EOFError: the other side is gone, or has gone mad.
    """
    head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, _MAX_DESCRIPTORS)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    if len(head) < _LENGTH_BYTES:
        head += _exactly(connection, _LENGTH_BYTES - len(head))
    size_bytes = int.from_bytes(head, "little")
    if size_bytes > _MAX_BYTES:
        raise EOFError("The other process sends what is no message.")
    message: dict[str, Any] = json.loads(_exactly(connection, size_bytes))
    return message, list(descriptors)


def _exactly(connection: socket.socket, size_bytes: int) -> bytes:
    pieces = []
    while size_bytes:
        piece = connection.recv(size_bytes)
        if not piece:
            raise EOFError("The other process is gone.")
        pieces.append(piece)
        size_bytes -= len(piece)
    return b"".join(pieces)
