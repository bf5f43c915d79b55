"""Waiting for answers without a thread of its own.

    threads   one of those who wait leads: it sleeps on the bell and hands out what comes; the others are parked
    tasks     the event loop watches the bell and hands out what comes

So a lone `predict` passes no other thread on its way, and a thousand tasks need none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelserve.runtime.bell import Bell
    from modelserve.runtime.channel import Alarm
    from modelserve.runtime.pending import Pending

_SLEEP_MS = 1000
# For so long an event loop may be kept from everything else.
_LONGEST_LOOK_NS = 250_000


class Listener:
    """Hands out answers.

    Args:
        bell: Rings when a worker has answered.
        alarm: Has to be set before anybody sleeps on the bell.
        collect: Finds what has come and notifies whoever waits for it; called with the loop of this thread, if any.
        has_answers: Whether there is something to collect.
        spin_ns: How long it is worth looking again and again for this answer before sleeping.
    """

    def __init__(
        self,
        bell: Bell,
        alarm: Alarm,
        collect: Callable[[asyncio.AbstractEventLoop | None], None],
        has_answers: Callable[[], bool],
        spin_ns: Callable[[Pending], int],
    ) -> None:
        self._bell = bell
        self._alarm = alarm
        self._has_answers = has_answers
        self._collect = collect
        self._spin_ns = spin_ns
        self._lead = threading.Lock()
        self._leading: Pending | None = None
        self._parked: dict[Pending, None] = {}
        self._poller = select.poll()
        self._poller.register(bell.wait_descriptor, select.POLLIN)
        self._loops: dict[asyncio.AbstractEventLoop, int] = {}

    def wait(self, pending: Pending) -> None:
        """Return when `pending` is answered, in time or by its deadline."""
        if self._lead.acquire(blocking=False):
            self._lead_until(pending)
        while not pending.answered:
            self._follow(pending)

    def nudge(self) -> None:
        """Make whoever leads look whether its own answer has come by another way."""
        leading = self._leading
        if leading is not None and leading.answered:
            self._bell.ring()

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have `loop` watch the bell from now on."""
        if loop in self._loops:
            return
        for stale in [known for known in self._loops if known.is_closed()]:
            os.close(self._loops.pop(stale))
        # A number of its own, so that the loop's books stay right whoever closes first.
        descriptor = os.dup(self._bell.wait_descriptor)
        self._loops[loop] = descriptor
        loop.add_reader(descriptor, self._hear, loop)
        self._set_alarm()

    def attend_to(self, pending: Pending, loop: asyncio.AbstractEventLoop) -> None:
        """Have `loop` hand out this answer; for a lone task of a quick model it looks again and again for a moment."""
        self.attend(loop)
        if self._spin_ns(pending):
            self._alarm.put_out()
            # Behind whatever is ready by now: it may bring company, which is better answered together.
            loop.call_soon(self._look, pending, loop)

    def close(self) -> None:
        """Take the bell out of every loop."""
        loops, self._loops = self._loops, {}
        for loop, descriptor in loops.items():
            if loop.is_closed():
                os.close(descriptor)
                continue
            with contextlib.suppress(RuntimeError):  # closed between the two lines
                loop.call_soon_threadsafe(_forget, loop, descriptor)

    def _hear(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bell.silence()
        self._collect(loop)
        self._set_alarm()

    def _look(self, pending: Pending, loop: asyncio.AbstractEventLoop) -> None:
        if not pending.answered:
            self._spin(pending, min(self._spin_ns(pending), _LONGEST_LOOK_NS), loop)
        # In a moment: a worker that has just shown its answer may still look whether it is to ring.
        loop.call_soon(self._set_alarm)

    def _set_alarm(self) -> None:
        """Have the next answer ring; what came just before it was set rings now."""
        self._alarm.set()
        if self._has_answers():
            self._bell.ring()

    def _follow(self, pending: Pending) -> None:
        opened = pending.park()
        self._parked[pending] = None
        # Registered first, then tried: a leader who leaves in between sees one of the two.
        if self._lead.acquire(blocking=False):
            self._parked.pop(pending, None)
            self._lead_until(pending)
            return
        left_s = (pending.deadline_ns - time.monotonic_ns()) / 1e9
        if not pending.answered and (left_s <= 0 or not opened.acquire(timeout=left_s)) and not pending.answered:
            pending.expire()
        self._parked.pop(pending, None)

    def _lead_until(self, pending: Pending) -> None:
        """Hand out answers until `pending` has its own; then let another lead. The lead is held on entry."""
        try:
            self._leading = pending
            self._spin(pending, self._spin_ns(pending), None)
            while not self._has_come(pending):
                self._alarm.set()
                if self._has_come(pending):
                    break
                left_ms = (pending.deadline_ns - time.monotonic_ns()) / 1e6
                if left_ms <= 0:
                    pending.expire()
                    break
                self._poller.poll(min(left_ms + 1, _SLEEP_MS))
                self._bell.silence()
        finally:
            self._leading = None
            self._lead.release()
            self._promote()
            if self._loops:
                self._set_alarm()  # their bell may have been silenced here

    def _has_come(self, pending: Pending) -> bool:
        if not pending.answered:
            self._collect(None)
        return pending.answered

    def _spin(self, pending: Pending, budget_ns: int, here: asyncio.AbstractEventLoop | None) -> None:
        lane = pending.lane
        if not budget_ns or lane is None:
            return
        has_answers = lane.sender.has_answers
        now = time.perf_counter_ns
        end = now() + budget_ns
        while now() < end:
            if has_answers():
                self._collect(here)
                return

    def _promote(self) -> None:
        """Open one parked waiter's lock, so that it finds the lead free."""
        for pending in list(self._parked):
            if not pending.answered:
                pending.unpark()
                return


def _forget(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    loop.remove_reader(descriptor)
    os.close(descriptor)
