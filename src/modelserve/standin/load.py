"""Callers that keep asking while something else happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Load:
    """Threads that call `ask` until the end of `with`; what they raise is collected and never lost.

    Args:
        goes_on: Whether they ask on after a failure; by default the first one ends them all.

    Attributes:
        answered: How many calls were answered so far.
        failures: What calls raised.
    """

    def __init__(self, ask: Callable[[], None], *, threads: int = 2, goes_on: bool = False) -> None:
        self._ask = ask
        self._goes_on = goes_on
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        self.answered = 0
        self.failures: list[BaseException] = []

    def wait_for(self, more: int, *, timeout_s: float = 30.0) -> None:
        """Return once `more` further calls were answered, so that what follows happens under load."""
        with self._moved:
            goal = self.answered + more
            done = self._moved.wait_for(lambda: self.answered >= goal or self._stop.is_set(), timeout_s)
        assert done, f"Only {self.answered} of {goal} calls were answered within {timeout_s} s."

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads), "A caller hangs."

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._ask()
            except BaseException as error:  # noqa: BLE001  # handed to whoever started this, who looks at every one
                self.failures.append(error)
                if not self._goes_on:
                    self._stop.set()
            else:
                self.answered += 1
            with self._moved:
                self._moved.notify_all()
