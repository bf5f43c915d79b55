"""The one thread of a pool: it watches sockets, runs what is posted to it, and ticks.

Processes are started, heard and buried here only, so none of that needs a lock. No request passes through it.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from modelserve.runtime.bell import Bell

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_DELAY_AFTER_DEFECT_S = 0.5


class Supervisor(threading.Thread):
    """Runs until `stop`.

    Args:
        tick: Called between events; returns the seconds until it wants to be called again.
    """

    def __init__(self, tick: Callable[[], float]) -> None:
        super().__init__(name="modelserve-supervisor", daemon=True)
        self._tick = tick
        self._selector = selectors.DefaultSelector()
        self._bell = Bell.create()
        self._posted: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._selector.register(self._bell.wait_descriptor, selectors.EVENT_READ, self._bell.silence)

    def watch(self, source: socket.socket | int, callback: Callable[[], object]) -> None:
        """Call `callback` in this thread whenever `source` is readable."""
        self._selector.register(source, selectors.EVENT_READ, callback)

    def unwatch(self, source: socket.socket | int) -> None:
        """Quiet when it is not watched."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def post(self, action: Callable[[], None]) -> None:
        """Run `action` in this thread, soon."""
        self._posted.append(action)
        self._bell.ring()

    def call(self, action: Callable[[], Result]) -> Result:
        """Run `action` in this thread and wait for what it returns or raises."""
        if threading.current_thread() is self:
            return action()
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(action())
            except BaseException as error:  # noqa: BLE001  # handed to whoever called
                future.set_exception(error)

        self.post(run)
        return future.result()

    def stop(self) -> None:
        """End the thread once all that was posted has run."""
        self.post(self._stop)
        if threading.current_thread() is not self:
            self.join()

    def run(self) -> None:
        delay_s = 0.0

        def tick() -> None:
            nonlocal delay_s
            delay_s = self._tick()

        while not self._stopping:
            for key, _ in self._selector.select(delay_s):
                # One callback may have ended what the next one is about.
                if self._selector.get_map().get(key.fd) is key:
                    self._safely(key.data)
            while self._posted:
                self._safely(self._posted.popleft())
            if not self._stopping:
                delay_s = _DELAY_AFTER_DEFECT_S
                self._safely(tick)
        self._selector.close()

    def _stop(self) -> None:
        self._stopping = True

    def _safely(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception:  # noqa: BLE001  # a defect of ours must not end the thread that all requests depend on
            _log.exception("The pool's supervisor failed in %r.", action)
