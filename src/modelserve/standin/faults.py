"""What is to go wrong at a stand-in, by the name of an operation; and every operation that was called, in order.

    faults.plan("CreateModel", Failing("ResourceLimitExceeded", "no quota"))   the next call
    faults.plan("CreateEndpoint", LostAnswer(), nth=2)                         the second from now, done, unanswered

How an error looks on the wire is each cloud's own; here stands only what happens.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Failing:
    """The call is refused; nothing was done. `code` and `message` are the cloud's own words."""

    code: str
    message: str = "Ordered by a test."
    status: int = 400


@dataclass(frozen=True, slots=True)
class Throttled:
    """The call is refused because there were too many; nothing was done."""


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """The call is done, and its answer never arrives: the caller sees a broken connection."""


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """The call is done, and its answer, which comes in pieces, ends after the first of them."""


@dataclass(frozen=True, slots=True)
class Delayed:
    """The call is done, later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NotYetSeen:
    """What the call asks for exists and is answered as missing: reads follow writes at a distance."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The call is done, and this process is told to stop, as by Ctrl-C."""


Fault: TypeAlias = Failing | Throttled | LostAnswer | BrokenOff | Delayed | NotYetSeen | Interrupted


def interrupt() -> None:
    """Ctrl-C, for the main thread of this process."""
    os.kill(os.getpid(), signal.SIGINT)


@dataclass(slots=True)
class Switches:
    """What goes wrong with containers, until it is switched off again.

    Attributes:
        replicas: Most that the cloud has capacity for; None for any number.
        start_delay_s: Time before a container starts.
        never_healthy: Containers start and are never ready.
        crash_at_start: Containers end as soon as they start.
    """

    replicas: int | None = None
    start_delay_s: float = 0.0
    never_healthy: bool = False
    crash_at_start: bool = False


@dataclass(slots=True)
class _Planned:
    fault: Fault
    skip: int
    times: int


@dataclass(slots=True)
class Faults:
    """One stand-in's faults.

    Attributes:
        calls: Every operation that was called, in order.
        switches: What goes wrong with containers.
    """

    calls: list[str] = field(default_factory=list)
    switches: Switches = field(default_factory=Switches)
    _planned: dict[str, list[_Planned]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, operation: str, fault: Fault, *, nth: int = 1, times: int = 1) -> None:
        """Let the nth call of `operation` from now on meet `fault`, and `times - 1` more after it."""
        with self._lock:
            self._planned.setdefault(operation, []).append(_Planned(fault, nth - 1, times))

    def clear(self) -> None:
        """Let nothing go wrong any more, and forget the calls."""
        with self._lock:
            self._planned.clear()
            self.calls.clear()
        self.switches = Switches()

    def meet(self, operation: str) -> Fault | None:
        """Called by the stand-in for every operation: what this call meets. A delay has passed by then."""
        with self._lock:
            self.calls.append(operation)
            fault = self._taken(operation)
        if isinstance(fault, Delayed):
            time.sleep(fault.seconds)
        return fault

    def _taken(self, operation: str) -> Fault | None:
        for planned in self._planned.get(operation, []):
            if planned.skip > 0:
                planned.skip -= 1
            elif planned.times > 0:
                planned.times -= 1
                return planned.fault
        return None
