"""An iterator that is run ahead by a thread of its own, a bounded number of items at most."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
_LOOK_S = 0.1


class _End:
    """What stands behind the last item: why it ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Ahead(Generic[T]):
    """Give the items of `items`, made by a thread; at most `depth` of them wait. Leaving `with` ends the thread.

    Args:
        waiting: Called now and then while there is no item yet.
    """

    def __init__(self, items: Iterator[T], depth: int, waiting: Callable[[], None] | None = None) -> None:
        self._items = items
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._waiting = waiting
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="modelserve-dataset", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            self._drain()
            self._thread.join(_LOOK_S)
        self._drain()

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                item = self._queue.get(timeout=_LOOK_S)
            except queue.Empty:
                if self._waiting is not None:
                    self._waiting()
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _run(self) -> None:
        end = _End(None)
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:  # noqa: BLE001  # raised where the items are taken
            end = _End(error)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
        self._put(end)

    def _put(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def _drain(self) -> None:
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return
