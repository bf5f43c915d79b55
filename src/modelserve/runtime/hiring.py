"""Starts one worker process, with everything that belongs to it; and how long to wait after a start that failed."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from modelserve.errors import WorkerStartError
from modelserve.runtime import messages
from modelserve.runtime.bell import Bell
from modelserve.runtime.channel import Sender
from modelserve.runtime.dispatch import Lane
from modelserve.runtime.launch import Launcher
from modelserve.runtime.member import Member, Surroundings, close_both

_FAILED_STARTS = 3
_FIRST_BACK_OFF_S = 0.1
_LONGEST_BACK_OFF_S = 5.0


class BackOff:
    """After each start that failed the next one waits twice as long; three in a row are enough."""

    def __init__(self) -> None:
        self.failed_starts = 0
        self._after = 0.0

    def reset(self) -> None:
        """A worker started, or somebody asks anew."""
        self.failed_starts = 0
        self._after = 0.0

    def note_failure(self) -> None:
        """A worker did not start."""
        self.failed_starts += 1
        self._after = time.monotonic() + min(_FIRST_BACK_OFF_S * 2 ** (self.failed_starts - 1), _LONGEST_BACK_OFF_S)

    @property
    def is_over(self) -> bool:
        """Whether the next one may be started now."""
        return time.monotonic() >= self._after

    @property
    def is_hopeless(self) -> bool:
        return self.failed_starts >= _FAILED_STARTS


def hire(
    pool: Surroundings,
    launcher: Launcher,
    place: Sequence[int],
    learnt: Mapping[str, Any],
    descriptors: Sequence[int],
) -> Member:
    """Start a worker and tell it what to do.

    Args:
        place: The processors that it keeps to; none means any.
        learnt: What to load and what is known of it, for the worker's start message.
        descriptors: What that message refers to.

    Raises:
        WorkerStartError: no more workers fit, or it cannot be started.
    """
    if not pool.slots:
        raise WorkerStartError("No more workers fit into this pool. Scale to fewer.")
    slot = pool.slots.pop()
    bell = Bell.create()
    control, theirs = socket.socketpair()
    errors, write_errors = os.pipe()
    os.set_blocking(errors, False)
    try:
        lane = Lane(Sender(pool.view, slot, bell))
        handle = launcher.start(theirs, write_errors)
    except BaseException:
        close_both(control, errors)
        pool.slots.add(slot)
        raise
    finally:
        theirs.close()
        os.close(write_errors)
    member = Member(slot, control, errors, bell, handle, lane, place)
    _order(pool, member, learnt, descriptors)
    return member


def _order(pool: Surroundings, member: Member, learnt: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    order = {
        **learnt,
        "slot": member.slot,
        "arena_bytes": pool.arena_bytes,
        "may_spin": pool.may_spin,
        "latency_budget_s": pool.latency_budget_s,
        "cores": list(member.place),
    }
    bells = [member.bell.ring_descriptor, member.bell.wait_descriptor]
    bells += [pool.answer_bell.ring_descriptor, pool.answer_bell.wait_descriptor]
    with contextlib.suppress(OSError):  # dead already: its control socket says so in a moment
        messages.send(member.control, order, [pool.arena_descriptor, *bells, *descriptors])
