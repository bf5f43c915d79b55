"""Run a coroutine to its end without a task around it.

A task costs a turn of the loop before the first line runs, and a turn more after the last one. A request is answered
by a coroutine that waits for one future, so its steps are called from that future itself.
What runs here must not ask for the current task: no `asyncio.timeout`, no `asyncio.gather`. Streams get a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Drive(Generic[T]):
    """A coroutine under way.

    Args:
        done: Called with what the coroutine returns. What it raises is raised out of the step that raised it, so a
            coroutine given here has to turn its errors into results.
    """

    __slots__ = ("_coroutine", "_done", "_ended")

    def __init__(self, coroutine: Coroutine[Any, Any, T], done: Callable[[T], None]) -> None:
        self._coroutine = coroutine
        self._done = done
        self._ended = False
        self._step(None)

    def stop(self) -> None:
        """End it where it waits; its `finally` blocks run, `done` is not called."""
        if not self._ended:
            self._ended = True
            self._coroutine.close()

    def _step(self, _: object) -> None:
        if self._ended:
            return
        try:
            waited = self._coroutine.send(None)
        except StopIteration as end:
            self._ended = True
            self._done(end.value)
            return
        if waited is None:  # asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(self._step, None)
            return
        waited._asyncio_future_blocking = False  # noqa: SLF001  # the protocol between a future and who runs a coroutine
        waited.add_done_callback(self._step)
