"""One thread with an event loop that does all the talking to one server, over pooled connections.

submit ──► the loop's thread ──► httpx.AsyncClient ──► server
   └── a future that threads wait for and tasks await

Nothing is ever sent twice: whether a question may be asked again, only its caller knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

import httpx

from modelserve.backend.translate import ErrorTable, raising_ours
from modelserve.errors import BackendError, ConfigError, DeadlineError, DeploymentClosedError, WireError

T = TypeVar("T")

CONNECT_S = 10.0

#: httpx's errors as ours.
HTTPX_ERRORS: ErrorTable = {
    httpx.HTTPError: BackendError,
    httpx.TimeoutException: DeadlineError,
    httpx.ProtocolError: WireError,
    httpx.DecodingError: WireError,
    httpx.TooManyRedirects: ConfigError,
    httpx.UnsupportedProtocol: ConfigError,
    httpx.InvalidURL: ConfigError,
    httpx.CookieConflict: BackendError,
    httpx.StreamError: BackendError,
}


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


class Transport:
    """Talks to one server; its thread starts with the first question.

    Args:
        open_client: Makes the client, in the caller's thread, so that a mistake in its settings is raised there.
        server: How errors name the server.
        timeout_s: Longest time for an answer where the question does not say.
    """

    def __init__(self, open_client: Callable[[], httpx.AsyncClient], *, server: str, timeout_s: float) -> None:
        self._open_client = open_client
        self._server = server
        self._timeout_s = timeout_s
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
        except BaseException:
            work.close()
            raise

    async def ask(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """In the loop: the server's answer, whatever its status.

        Raises:
            DeadlineError: it did not come in time; the server may still be at it.
            BackendError: there is no connection.
        """
        async with self._asking(f"{method} {self._server}{path}", timeout_s) as client:
            return await client.request(method, path, json=json, content=content, headers=headers)

    async def stream(
        self,
        method: str,
        path: str,
        take: Callable[[httpx.Response], Awaitable[T]],
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> T:
        """In the loop: what `take` makes of the server's answer while its body still comes.

        Raises:
            DeadlineError, BackendError: as `ask`, also while `take` is at it.
        """
        async with (
            self._asking(f"{method} {self._server}{path}", timeout_s) as client,
            client.stream(method, path, content=content, headers=headers) as answer,
        ):
            return await take(answer)

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

    @contextlib.asynccontextmanager
    async def _asking(self, doing: str, timeout_s: float | None) -> AsyncIterator[httpx.AsyncClient]:
        seconds = self._timeout_s if timeout_s is None else timeout_s
        assert self._client is not None
        with raising_ours(HTTPX_ERRORS, doing):
            try:
                # The deadline is kept around the whole request, not between two bytes of it.
                async with asyncio.timeout(seconds):
                    yield self._client
            except TimeoutError:
                raise DeadlineError(f"{doing}: no answer within {seconds:g} s. Give a longer timeout_s.") from None

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise _closed()
            if self._loop is None:
                self._client = self._open_client()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop, self._client), name="modelserve-transport", daemon=True
                )
                self._thread.start()
            return self._loop


def pooled_client(base_url: str, *, connections: int, **settings: Any) -> httpx.AsyncClient:
    """A client that keeps `connections` open at most, and leaves deadlines to the transport."""
    return httpx.AsyncClient(
        base_url=base_url,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        **{"trust_env": False, **settings},
    )


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


def _closed() -> DeploymentClosedError:
    return DeploymentClosedError("The connection to the server was closed. Attach to it again.")
