"""Requests that killed every worker that ran them: refused for a while, so that they cost no further worker."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from modelserve.errors import PoisonedRequestError
from modelserve.wire import Message

_QUARANTINE_S = 60.0


@dataclass(slots=True)
class Quarantine:
    """Requests that killed their workers, by digest, for a while."""

    until: dict[bytes, tuple[float, str]] = field(default_factory=dict)

    def add(self, parts: Iterable[Any], how: str) -> None:
        """Refuse the request whose header and buffers these are, because its workers died like this."""
        self.until[_digest(parts)] = (time.monotonic() + _QUARANTINE_S, how)

    def why(self, message: Message) -> str | None:
        """How the workers of this request died; None where it is free to go."""
        if not self.until:
            return None
        now = time.monotonic()
        self.until = {digest: entry for digest, entry in self.until.items() if entry[0] > now}
        entry = self.until.get(_digest((message.header, *message.buffers)))
        return entry[1] if entry else None


def poison(how: str) -> PoisonedRequestError:
    """The refusal of a request whose workers died like this."""
    return PoisonedRequestError(
        f"Workers die whenever they run this request: each {how}. "
        "It is refused for a while; look for what the model does with these inputs."
    )


def _digest(parts: Iterable[Any]) -> bytes:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()
