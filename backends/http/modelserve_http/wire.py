"""Our way of asking a server of models: the core's transport, with the server's own errors as ours."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx

from modelserve.backend import raising_ours
from modelserve.backend.transport import Answer, Transport, pooled_client
from modelserve.errors import ConfigError
from modelserve_http.errors import VENDOR_ERRORS, from_answer
from modelserve_http.options import HttpOptions

T = TypeVar("T")


class Wire:
    """Talks to one server."""

    def __init__(self, options: HttpOptions) -> None:
        self._url = options.url
        self._transport = Transport(lambda: _client(options), server=options.url, timeout_s=options.timeout_s)

    def start(self, work: Coroutine[Any, Any, T]) -> Answer[T]:
        """Have the transport's loop do this."""
        return self._transport.start(work)

    def call(self, method: str, path: str, *, json: Any = None, timeout_s: float | None = None) -> httpx.Response:
        """Ask, and wait for an answer of 2xx.

        Raises:
            ModelServeError: what the answer stands for otherwise.
        """
        headers = {} if json is None else {"content-type": "application/json"}
        return self.start(self.ask(method, path, json=json, headers=headers, timeout_s=timeout_s)).result()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: dict[str, str],
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """In the loop: as `call`."""
        answer = await self._transport.ask(
            method, path, json=json, content=content, headers=headers, timeout_s=timeout_s
        )
        if not answer.is_success:
            raise from_answer(answer, f"{method} {self._url}{path}")
        return answer

    def close(self) -> None:
        """Break off what is under way. Quiet when called twice."""
        self._transport.close()


def _client(options: HttpOptions) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {options.key}"} if options.key else {}
    with raising_ours({OSError: ConfigError, **VENDOR_ERRORS}, "Reading certificates"):
        return pooled_client(options.url, connections=options.connections, headers=headers, verify=_context(options))


def _context(options: HttpOptions) -> Any:
    if options.ca is None and options.certificate is None:
        return True
    import ssl

    context = ssl.create_default_context(cafile=None if options.ca is None else str(options.ca))
    if options.certificate is not None:
        context.load_cert_chain(options.certificate)
    return context
