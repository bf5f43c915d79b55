"""Waiting for what takes minutes there and moments at a stand-in: pauses grow."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelserve.errors import DeadlineError

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 10.0
_GROWTH = 1.4


def wait_until(is_so: Callable[[], bool], timeout_s: float, doing: str) -> None:
    """Look again and again until it is so.

    Raises:
        DeadlineError: it was not within the time.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while not is_so():
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineError(
                f"{doing} did not end within {timeout_s:g} s. It may still go on there; ask its status."
            )
        time.sleep(min(pause_s, left_s))
        pause_s = min(_LONGEST_PAUSE_S, pause_s * _GROWTH)
