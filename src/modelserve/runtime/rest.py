"""How a worker waits for its next request: looks again and again for a moment, then sleeps.

spin (one worker at a time, as long as a wake-up takes here) ──► sleep on the bell ──► awake
▲                                            │
└──── how long a ring took to arrive ◄───────┘
"""

from __future__ import annotations

import select
import time

from modelserve.runtime.batcher import usual_ns
from modelserve.runtime.channel import Receiver, SpinTurn

_SPIN_NS = 60_000
_LONGEST_SPIN_NS = 400_000
# What being woken costs beside the wait: a processor that was halted finds nothing in its caches.
_WAKES = 4
_SLEEP_MS = 1000


class Rest:
    """The pauses of one worker.

    Args:
        control: Descriptor of the control socket, which closes when the pool has let go.
    """

    def __init__(self, receiver: Receiver, turn: SpinTurn, control: int, *, may_spin: bool) -> None:
        self._receiver = receiver
        self._turn = turn
        self._control = control
        self._may_spin = may_spin
        self._spin_ns = _SPIN_NS if may_spin else 0
        self._wake_ns = 0
        #: What a run usually takes.
        self.service_ns = 0
        self._poller = select.poll()
        self._poller.register(receiver.bell.wait_descriptor, select.POLLIN)
        self._poller.register(control, select.POLLIN)

    def until_called(self) -> bool:
        """Until something waits; False when the pool has let go."""
        if self._spin():
            return True
        receiver = self._receiver
        slept_ns = time.monotonic_ns()
        while receiver.about_to_sleep():
            events = self._poller.poll(_SLEEP_MS)
            receiver.awake()
            if receiver.waiting():
                self._note_wake(slept_ns, receiver.rang_ns, time.monotonic_ns())
                break
            if any(descriptor == self._control for descriptor, _ in events):
                return False
        return True

    def _spin(self) -> bool:
        """Look again and again for a moment; less often after it was in vain."""
        if not self._spin_ns:
            return False
        waiting = self._receiver.waiting
        turn = self._turn
        turn.take()
        now = time.perf_counter_ns
        end = now() + self._spin_ns
        while now() < end:
            if waiting():
                return True
            if not turn.is_mine():
                return False
        self._spin_ns //= 2
        return False

    def _note_wake(self, slept_ns: int, rang_ns: int, now_ns: int) -> None:
        """Learn what a wake-up costs here, and whether a spin would have been shorter than it."""
        if rang_ns < slept_ns:
            return  # it found the request by itself
        self._wake_ns = min(usual_ns(self._wake_ns, now_ns - rang_ns), _LONGEST_SPIN_NS)
        self._receiver.tell_wake(self._wake_ns)
        worth_ns = self._worth_spinning_ns()
        if self._may_spin and rang_ns - slept_ns < worth_ns:
            self._spin_ns = worth_ns

    def _worth_spinning_ns(self) -> int:
        """As long as some wake-ups take; a caller's next request comes the later, the larger its inputs are."""
        return min(max(_SPIN_NS, _WAKES * self._wake_ns, self.service_ns // 4), _LONGEST_SPIN_NS)
