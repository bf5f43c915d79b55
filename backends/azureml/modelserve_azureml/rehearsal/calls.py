"""One call to the stand-in and its answer, whatever server carries them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from modelserve.standin.loopback import Answered, Exchange


@dataclass(frozen=True)
class Call:
    """What a client asked; header names are in lower case."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def json(self) -> Any:
        """The body, where it is JSON; an empty object otherwise."""
        try:
            return json.loads(self.body) if self.body else {}
        except ValueError:
            return {}

    @property
    def bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @classmethod
    def of(cls, exchange: Exchange) -> Self:
        """The call that a server received."""
        query = {name: values[-1] for name, values in exchange.query.items()}
        host = exchange.headers.get("host", "").partition(":")[0].lower()
        return cls(exchange.method, host, exchange.path, query, exchange.headers, exchange.body)


class Refusal(Exception):  # noqa: N818  # it is an answer
    """Raised by whatever finds that a call must be refused; answered as Azure words it."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.answer = said({"error": {"code": code, "message": message}}, status, headers)


def said(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answered:
    """An answer in JSON."""
    body = b"" if content is None else json.dumps(content).encode()
    return Answered(status, body, {"content-type": "application/json; charset=utf-8", **(headers or {})})
