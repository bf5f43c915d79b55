"""One worker process with everything that belongs to it, and what its crew uses of the pool."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from modelserve.errors import ModelServeError
from modelserve.runtime.bell import Bell
from modelserve.runtime.dispatch import Lane
from modelserve.runtime.launch import Handle
from modelserve.runtime.pending import Pending
from modelserve.runtime.supervisor import Supervisor

if TYPE_CHECKING:
    from modelserve.runtime.crew import Crew

#: Lines of a worker's output that are kept.
KEPT_LINES = 200


class Stage(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"


@dataclass(slots=True, eq=False)
class Member:
    """One worker process with everything that belongs to it."""

    slot: int
    control: socket.socket
    errors: int
    bell: Bell
    handle: Handle
    lane: Lane
    place: Sequence[int] = ()
    stage: Stage = Stage.STARTING
    lost_at: float | None = None
    stalled_at: float | None = None
    retire_by: float | None = None
    killed_for: str | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a crew uses of its pool."""

    supervisor: Supervisor
    lock: threading.Lock
    view: memoryview
    arena_descriptor: int
    arena_bytes: int
    answer_bell: Bell
    slots: set[int]
    run_timeout_s: float
    latency_budget_s: float
    places: Sequence[Sequence[int]]
    may_spin: bool
    changed: threading.Condition
    poisoned: Callable[[Sequence[Pending], str], list[Pending]]
    give_up: Callable[[Crew, ModelServeError], None]


def close_both(control: socket.socket, errors: int) -> None:
    """Close our ends of a worker's socket and pipe."""
    control.close()
    os.close(errors)
