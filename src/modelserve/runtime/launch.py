"""Starting worker processes: forked from a zygote on Linux, as modules of their own elsewhere.

Never by forking or re-importing the application, which may hold locks in other threads, and whose main program would
need a guard.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from modelserve import wire
from modelserve.errors import OutOfMemoryError, WorkerStartError
from modelserve.runtime import messages

# One thread for each of numpy's own helpers: a worker's threads are onnxruntime's, and a fork wants none at all.
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Handle:
    """A worker process.

    Attributes:
        exit_code: Negative for the signal that ended it, None while unknown.
        refusal: Why the platform gave no process; empty where it did.
    """

    def __init__(self) -> None:
        self.refusal = ""
        self.pid: int | None = None
        self.exit_code: int | None = None
        self._descriptor: int | None = None
        self._is_killed = False
        self._is_forgotten = False

    def born(self, pid: int) -> None:
        """Note the process; from here on it is named by a descriptor, which no other process can take over.

        It may have been given up while it was still to come.
        """
        self.pid = pid
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(ProcessLookupError):
                self._descriptor = os.pidfd_open(pid)
        if self._is_killed:
            self.kill()
        if self._is_forgotten:
            self.forget()

    def kill(self) -> None:
        """End it at once, or as soon as it is there; nothing happens when it is gone."""
        self._is_killed = True
        with contextlib.suppress(ProcessLookupError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]  # Linux only
            elif self.pid is not None and self.exit_code is None:
                os.kill(self.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Let go of the descriptor."""
        self._is_forgotten = True
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Launcher(Protocol):
    """Makes worker processes. Used from one thread."""

    def start(self, control: socket.socket, errors: int) -> Handle:
        """A process that serves `control` and writes what it prints to `errors`; its pid may come later."""
        ...

    def sockets(self) -> Mapping[socket.socket, Callable[[], bool]]:
        """What to watch, and what to call when it is readable; False from the call means the launcher is gone."""
        ...

    def reap(self) -> None:
        """Learn of processes that ended."""
        ...

    def close(self) -> None: ...


class SpawnLauncher:
    """Each worker a new interpreter that loads the model itself."""

    def __init__(self) -> None:
        self._processes: dict[Handle, subprocess.Popen[bytes]] = {}

    def start(self, control: socket.socket, errors: int) -> Handle:
        handle = Handle()
        process = _python("modelserve.runtime.worker", control, errors)
        self._processes[handle] = process
        handle.born(process.pid)
        return handle

    def sockets(self) -> Mapping[socket.socket, Callable[[], bool]]:
        return {}

    def reap(self) -> None:
        for handle, process in list(self._processes.items()):
            handle.exit_code = process.poll()
            if handle.exit_code is not None:
                del self._processes[handle]

    def close(self) -> None:
        for process in self._processes.values():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()


class ZygoteLauncher:
    """Workers forked from one process that has loaded the model.

    Args:
        load: What the zygote is to load before it forks; None when each worker loads for itself.
        descriptors: What `load` refers to.

    Raises:
        WorkerStartError: the zygote ended; its last words are in the message.
        ModelServeError: what loading the model raised.
    """

    def __init__(self, load: Mapping[str, Any] | None, descriptors: list[int], *, errors: int) -> None:
        self._connection, theirs = socket.socketpair()
        self._starting: deque[Handle] = deque()
        self._living: dict[int, Handle] = {}
        with theirs:
            self._process = _python("modelserve.runtime.zygote", theirs, errors)
        if load is not None:
            try:
                self._load(load, descriptors)
            except BaseException:
                self.close()
                raise

    def start(self, control: socket.socket, errors: int) -> Handle:
        handle = Handle()
        self._starting.append(handle)
        try:
            messages.send(self._connection, {"fork": True}, [control.fileno(), errors])
        except OSError as error:
            raise WorkerStartError(f"The process that workers are forked from is gone ({error}).") from error
        return handle

    def sockets(self) -> Mapping[socket.socket, Callable[[], bool]]:
        return {self._connection: self._hear}

    def reap(self) -> None:
        """Nothing to do: the zygote tells of its own accord."""

    def close(self) -> None:
        """The zygote ends, and whatever worker is left with it."""
        self._connection.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for handle in self._living.values():
            handle.exit_code = -signal.SIGKILL
        self._living.clear()

    def _load(self, load: Mapping[str, Any], descriptors: list[int]) -> None:
        try:
            messages.send(self._connection, {"load": dict(load)}, descriptors)
            answer, _ = messages.receive(self._connection)
        except (EOFError, OSError) as error:
            raise WorkerStartError(f"The process that loads the model {_ended(self._process)}.") from error
        if "failed" in answer:
            raise wire.decode_error(answer["failed"].encode())

    def _hear(self) -> bool:
        try:
            message, _ = messages.receive(self._connection)
        except (EOFError, OSError):
            return False
        if "forked" in message:
            handle = self._starting.popleft()
            handle.born(message["forked"])
            self._living[message["forked"]] = handle
        elif "refused" in message:
            refused = self._starting.popleft()
            refused.refusal, refused.exit_code = message["refused"], 0
        elif "exited" in message and (gone := self._living.pop(message["exited"], None)) is not None:
            gone.exit_code = message["status"]
        return True


def _python(module: str, inherited: socket.socket, errors: int) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise WorkerStartError("This Python does not know its own executable; set sys.executable to start workers.")
    here = str(Path(__file__).parents[2])
    known = os.environ.get("PYTHONPATH")
    environment = {**_SINGLE_THREADED, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (here, known)))}
    try:
        return subprocess.Popen(  # noqa: S603  # our own module, by our own interpreter
            # Without the option runpy prints that the package imports this module, too.
            [sys.executable, "-W", "ignore::RuntimeWarning:runpy", "-m", module, str(inherited.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=environment,
            pass_fds=[inherited.fileno()],
            # A Ctrl-C in the terminal is the application's to answer; it closes its workers.
            start_new_session=True,
        )
    except OSError as error:
        kind = OutOfMemoryError if error.errno in {errno.ENOMEM, errno.EAGAIN} else WorkerStartError
        raise kind(f"No worker process could be started: {error}. Scale to fewer workers.") from error


def _ended(process: subprocess.Popen[bytes]) -> str:
    try:
        return cause(process.wait(timeout=5))
    except subprocess.TimeoutExpired:
        return "does not answer"


def cause(exit_code: int | None) -> str:
    """How a process ended, in words."""
    if exit_code is None:
        return "ended"
    if exit_code >= 0:
        return f"ended with status {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"was killed by {name}"
