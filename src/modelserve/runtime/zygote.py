"""A small single-threaded process that loads the model once and forks workers from itself.

    application ── load ──► zygote: imports, loads
    application ── fork ──► zygote ── fork ──► worker (shares every page that it does not write)
                   ◄── forked, exited ──

One copy of the weights, and a worker more in milliseconds. Forking is safe here and nowhere else: this process is
started afresh, runs no thread of its own and no model. A session with threads of its own does not survive a fork, so
with more than one thread the model is loaded by each worker after it.
It ends, and its workers with it, when the application's socket closes.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
from typing import Any

from modelserve import wire
from modelserve.errors import BundleError, ModelServeError
from modelserve.runtime import messages, worker
from modelserve.session import Runner

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG


class Zygote:
    """Loads, forks, and tells of its children's ends."""

    def __init__(self, application: socket.socket) -> None:
        self._application = application
        self._runner: Runner | None = None
        self._children: set[int] = set()

    def run(self) -> None:
        """Serve the application until it is gone."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        poller = select.poll()
        poller.register(self._application, select.POLLIN)
        poller.register(wake_read, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poller.poll()}
                if wake_read in ready:
                    os.read(wake_read, 4096)
                    self._reap()
                if self._application.fileno() in ready:
                    self._obey(*messages.receive(self._application))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # the application is gone, and so is the reason to be
        finally:
            for child in self._children:
                os.kill(child, signal.SIGKILL)
            for child in self._children:
                os.waitpid(child, 0)  # nobody else would, and it would stay in the process table

    def _obey(self, order: dict[str, Any], descriptors: list[int]) -> None:
        try:
            if "load" in order:
                self._load(order["load"], descriptors)
            elif "fork" in order:
                self._fork(descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _load(self, order: dict[str, Any], descriptors: list[int]) -> None:
        try:
            self._runner = worker.load(order, descriptors)
        except Exception as error:  # noqa: BLE001  # whatever stops the model from loading is told to the pool
            ours = error if isinstance(error, ModelServeError) else BundleError(f"{type(error).__name__}: {error}")
            messages.send(self._application, {"failed": wire.encode_error(ours).decode()})
            return
        messages.send(self._application, {"loaded": True})

    def _fork(self, descriptors: list[int]) -> None:
        control, errors = descriptors
        parent = os.getpid()
        try:
            child = os.fork()
        except OSError as error:  # no memory or no process left
            messages.send(self._application, {"refused": str(error)})
            return
        if child == 0:
            self._become_worker(parent, control, errors)
        self._children.add(child)
        messages.send(self._application, {"forked": child})

    def _become_worker(self, parent: int, control: int, errors: int) -> None:
        """In the child: never returns, so that nothing of the zygote's runs twice."""
        status = 1
        try:
            ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)  # the zygote died before the line above could take effect
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            own = os.dup(control)
            self._application.close()
            os.close(control)
            os.close(errors)
            with socket.socket(fileno=own) as connection:
                worker.start(connection, self._runner)
            status = 0
        except BaseException:  # noqa: BLE001  # printed to the pipe that the pool reads, as an uncaught error would be
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        while self._children:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            self._children.discard(child)
            messages.send(self._application, {"exited": child, "status": os.waitstatus_to_exitcode(status)})


def main() -> None:
    """Entry point of `python -m modelserve.runtime.zygote DESCRIPTOR`."""
    with socket.socket(fileno=int(sys.argv[1])) as application:
        Zygote(application).run()


if __name__ == "__main__":
    main()
