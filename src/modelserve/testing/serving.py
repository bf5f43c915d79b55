"""A server in a thread of this process, or as a process of its own, for whoever asks one over the network."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from modelserve.runtime.server import Server, ServerSettings
from modelserve.runtime.server.contracts import Contract

T = TypeVar("T")
_LONGEST_S = 60.0


class ServerThread:
    """Runs a server until the end of `with`.

    Args:
        settings: Fields of `ServerSettings`; the port is chosen by the system unless it is given.
        wait: Whether entering waits until it is ready, and raises what kept it from that.
    """

    def __init__(self, contract: Contract | None = None, *, wait: bool = True, **settings: Any) -> None:
        self.settings = ServerSettings(**{"port": 0, "workers": 1, "drain_s": 5.0, **settings})
        self._contract = contract
        self._wait = wait
        self._started: Future[Server] = Future()
        self._ending: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    @property
    def server(self) -> Server:
        return self._started.result(0)

    @property
    def address(self) -> str:
        """Such as 127.0.0.1:40123."""
        return f"127.0.0.1:{self.server.port}"

    @property
    def grpc_address(self) -> str:
        """The same for gRPC, where it was asked for."""
        return f"127.0.0.1:{self.server.grpc_port}"

    @property
    def url(self) -> str:
        return f"{'http' if self.settings.tls_certificate is None else 'https'}://{self.address}"

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the server's own loop, and return what it returns."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_LONGEST_S)

    def stop(self) -> None:
        """Drain and end; quiet when called twice."""
        if self._loop is not None and self._ending is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(_LONGEST_S)
        assert not self._thread.is_alive(), "The server does not end."

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._started.result(_LONGEST_S)
        except BaseException:
            self._thread.join(_LONGEST_S)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _run(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = Server(self.settings, self._contract)
            try:
                await server.start(wait=self._wait)
            except BaseException:
                await server.stop(0)
                raise
        except BaseException as error:  # noqa: BLE001  # handed to whoever entered
            self._started.set_exception(error)
            return
        self._started.set_result(server)
        await self._ending.wait()
        await server.stop()


class ServerProcess:
    """The same as a process of its own: `python -m modelserve.runtime`, ended by SIGTERM at the end of `with`.

    Attributes:
        lines: What it wrote to its log, parsed.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        command: Sequence[str] = (sys.executable, "-m", "modelserve.runtime"),
    ) -> None:
        self._command = [*command, *arguments]
        self._environment = {**os.environ, "MODELSERVE_SERVER_PORT": "0", **(environment or {})}
        self._wait = wait
        self._changed = threading.Condition()
        self.lines: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> str:
        """Such as 127.0.0.1:40123."""
        return "127.0.0.1:" + str(self.wait_for("Listening on")["message"]).rsplit(":", 1)[1]

    @property
    def grpc_address(self) -> str:
        """The same for gRPC, where it was asked for."""
        return "127.0.0.1:" + str(self.wait_for("Listening for gRPC")["message"]).rsplit(":", 1)[1]

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def wait_for(self, text: str, *, timeout_s: float = _LONGEST_S) -> dict[str, Any]:
        """The first log line whose message begins like this."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines if str(line["message"]).startswith(text)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._over, timeout_s)
        line = found()
        assert line is not None, f"The server did not say {text!r} within {timeout_s} s. It said: {self.lines}"
        return line

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, *, timeout_s: float = _LONGEST_S) -> int:
        """Wait for its end; the exit status."""
        status = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return status

    def __enter__(self) -> Self:
        self._over = False
        self.process = subprocess.Popen(  # noqa: S603  # our own program, by the path of this interpreter
            self._command, env=self._environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            if self._wait:
                self.wait_for("Ready")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(_LONGEST_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._reader.join(_LONGEST_S)
            assert self.process.stderr is not None
            self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                said = json.loads(line)
            except ValueError:
                said = {"message": line.decode(errors="replace").rstrip()}
            with self._changed:
                self.lines.append(said)
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


def bundle_folder(parent: Path, **bundles: Any) -> Path:
    """A folder of bundles: each under its name, or as a dict of bundles by version."""
    for name, found in bundles.items():
        by_version = {f"{name}/{version}": one for version, one in found.items()} if isinstance(found, dict) else {}
        for place, bundle in (by_version or {name: found}).items():
            shutil.copytree(bundle.path, parent / place)
    return parent
