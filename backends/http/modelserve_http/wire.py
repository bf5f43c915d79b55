"""One thread with an event loop that does all the talking to one server, over pooled connections.

submit ──► the loop's thread ──► httpx.AsyncClient ──► server
   └── a future that threads wait for and tasks await
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

import httpx

from modelserve.backend import raising_ours
from modelserve.errors import DeadlineError, DeploymentClosedError
from modelserve_http.errors import VENDOR_ERRORS, from_answer
from modelserve_http.options import HttpOptions

T = TypeVar("T")
_CONNECT_S = 10.0


class Answer(Generic[T]):
    """An answer to come, for a thread or a task."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def result(self) -> T:
        try:
            return self._future.result()
        except CancelledError:
            raise _closed() from None

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self._future).__await__()

    def done(self) -> bool:
        return self._future.done()


class Wire:
    """Talks to one server."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: httpx.AsyncClient | None = None
        self._closed = False

    def start(self, work: Coroutine[Any, Any, T]) -> Answer[T]:
        """Have the loop do this.

        Raises:
            DeploymentClosedError: it was closed before.
        """
        try:
            return Answer(asyncio.run_coroutine_threadsafe(work, self._running()))
        except (DeploymentClosedError, RuntimeError) as error:
            work.close()
            raise _closed() from error

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
        seconds = self._options.timeout_s if timeout_s is None else timeout_s
        doing = f"{method} {self._options.url}{path}"
        assert self._client is not None
        with raising_ours(VENDOR_ERRORS, doing):
            try:
                async with asyncio.timeout(seconds):
                    answer = await self._client.request(method, path, json=json, content=content, headers=headers)
            except TimeoutError:
                raise DeadlineError(f"{doing}: no answer within {seconds:g} s. Give a longer timeout_s.") from None
        if not answer.is_success:
            raise from_answer(answer, doing)
        return answer

    def close(self) -> None:
        """Break off what is under way, close the connections, end the thread. Quiet when called twice."""
        with self._lock:
            self._closed = True
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise _closed()
            if self._loop is None:
                # Made here, so that a mistake in its settings is raised where they were given.
                self._client = _client(self._options)
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop, self._client), name="modelserve-http", daemon=True
                )
                self._thread.start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    """The thread's life: until the loop is stopped; what is under way then is cancelled."""
    try:
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(_wound_up(client))
    finally:
        loop.close()


async def _wound_up(client: httpx.AsyncClient) -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await asyncio.gather(*others, return_exceptions=True)
    await client.aclose()


def _client(options: HttpOptions) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {options.key}"} if options.key else {}
    with raising_ours({OSError: _bad_certificate, **VENDOR_ERRORS}, "Reading certificates"):
        return httpx.AsyncClient(
            base_url=options.url,
            headers=headers,
            verify=_context(options),
            limits=httpx.Limits(max_connections=options.connections, max_keepalive_connections=options.connections),
            # The deadline is kept around the whole request, not between two bytes of it.
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            trust_env=False,
        )


def _context(options: HttpOptions) -> Any:
    if options.ca is None and options.certificate is None:
        return True
    import ssl

    context = ssl.create_default_context(cafile=None if options.ca is None else str(options.ca))
    if options.certificate is not None:
        context.load_cert_chain(options.certificate)
    return context


def _bad_certificate(error: BaseException) -> type[Any]:
    from modelserve.errors import ConfigError

    return ConfigError


def _closed() -> DeploymentClosedError:
    return DeploymentClosedError("The connection to the server was closed. Attach to it again.")
