"""What a client may take of the server: bytes, connections and time."""

from __future__ import annotations

from dataclasses import dataclass

from modelserve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one client, and all together, can make the server hold or wait for.

    Attributes:
        body_bytes: Largest body, as sent and again as decompressed.
        bodies_bytes: All bodies that are held at once; further ones are refused with 503.
        head_bytes: Request line and headers together.
        headers: Number of headers.
        connections: Open connections; further ones are closed at once.
        pipelined: Requests that a client may send before it has read the answers.
        head_timeout_s: From the first byte of a request to the end of its headers.
        body_grace_s: Time that every body has, however slowly it comes.
        body_rate_bytes: Bytes a second that a body must bring after that.
        idle_timeout_s: How long a connection may rest between requests.
        write_timeout_s: How long a client may leave an answer unread.
        linger_s: How long the rest of a refused request is read and thrown away, so that its client sees the answer.
    """

    body_bytes: int = 128 << 20
    bodies_bytes: int = 1 << 30
    head_bytes: int = 32 << 10
    headers: int = 100
    connections: int = 8192
    pipelined: int = 64
    head_timeout_s: float = 10.0
    body_grace_s: float = 10.0
    body_rate_bytes: int = 1024
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 60.0
    linger_s: float = 2.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"The limit {name} must be above 0, got {value!r}.")
