"""The worker processes of one model: hired, heard, replaced when they die, dismissed.

    hire ──► STARTING ── ready ──► READY ── retire ──► RETIRING ── drained ──► gone
                │ dies                │ dies, hangs
                └── back off, or ─────┴──► buried: its requests wait again, a replacement is hired
                    give up after three

All of it runs in the supervisor's thread; what touches the dispatcher takes the pool's lock.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from modelserve import wire
from modelserve.errors import ModelServeError, OutOfMemoryError, WorkerStartError
from modelserve.runtime import messages, usage
from modelserve.runtime.dispatch import Dispatcher
from modelserve.runtime.hiring import BackOff, hire
from modelserve.runtime.launch import Launcher, cause
from modelserve.runtime.member import KEPT_LINES, Member, Stage, Surroundings, close_both
from modelserve.runtime.stalls import why_to_end

_log = logging.getLogger(__name__)

_SHOWN_LINES = 20
_CAUSE_WAIT_S = 0.3


class Crew:
    """The workers of one model.

    Args:
        load: How a worker loads the model, as `worker.load` reads it.
        descriptors: What `load` refers to; they belong to the crew from here on.
        may_join: Whether requests of several callers may go to a worker as one.
    """

    def __init__(
        self,
        pool: Surroundings,
        launcher: Callable[[], Launcher],
        load: Mapping[str, Any],
        descriptors: Sequence[int],
        digest: str,
        *,
        may_join: bool,
    ) -> None:
        self.dispatcher = Dispatcher()
        self.members: list[Member] = []
        self.wanted = 0
        self.restarts = 0
        self.digest = digest
        self.may_join = may_join
        self.leaving = False
        self.failure: ModelServeError | None = None
        self.shortage: ModelServeError | None = None
        self.past_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._pool = pool
        self._make_launcher = launcher
        self._launcher = launcher()
        self._load = load
        self._descriptors = list(descriptors)
        self._curve: list[float] = []
        self._back_off = BackOff()
        self._memory_kills = usage.out_of_memory_kills()

    # Asked for by the pool, in the supervisor's thread.

    def open(self) -> None:
        """Start to listen to the launcher."""
        for source, hear in self._launcher.sockets().items():
            self._pool.supervisor.watch(source, partial(self._hear_launcher, hear))

    def resize(self, workers: int, *, drain_s: float) -> None:
        """Have this many; those too many finish what lies before them first."""
        self.wanted = workers
        self.shortage = None
        self._back_off.reset()
        staying = [member for member in self.members if member.stage is not Stage.RETIRING]
        spare = sorted(staying, key=lambda member: (member.stage is Stage.READY, len(member.lane.outstanding)))
        for member in spare[: max(0, len(staying) - workers)]:
            self._retire(member, drain_s)
        self._hire_wanted()

    def leave(self, *, drain_s: float) -> None:
        """Let every worker go once the queue is empty."""
        self.leaving = True
        self._leave_by = time.monotonic() + drain_s
        self.settle()

    def settle(self) -> None:
        """Dismiss whoever is drained."""
        if self.leaving and (not self.dispatcher.queue or time.monotonic() > self._leave_by) and self.wanted:
            self.resize(0, drain_s=self._leave_by - time.monotonic())
        for member in list(self.members):
            if member.stage is Stage.RETIRING and not member.lane.outstanding:
                self._dismiss(member)

    def tick(self, now: float) -> None:
        """Notice who hangs, whose end is known by now, and who is to be hired."""
        self._launcher.reap()
        for member in list(self.members):
            if member.lost_at is not None:
                if member.handle.exit_code is not None or now - member.lost_at > _CAUSE_WAIT_S:
                    self._bury(member)
            elif member.retire_by is not None and now > member.retire_by:
                self._kill(member, "it did not finish in time to be let go")
            elif why := why_to_end(member, now, self._pool.run_timeout_s):
                self._kill(member, why)
        self.settle()
        self._hire_wanted()

    def close(self) -> None:
        """End every worker at once."""
        for member in list(self.members):
            self._drop(member)
        for source in self._launcher.sockets():
            self._pool.supervisor.unwatch(source)
        self._launcher.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    @property
    def ready(self) -> int:
        """Workers that answer."""
        return sum(member.stage is Stage.READY and member.lost_at is None for member in self.members)

    def last_words(self) -> str:
        """What the workers printed last, for a message."""
        lines = [*self.past_lines, *(line for member in self.members for line in member.lines)][-_SHOWN_LINES:]
        return "\n".join(["", "Last lines of the worker:", *lines]) if lines else ""

    # Hiring.

    def _hire_wanted(self) -> None:
        if self.failure is not None or not self._back_off.is_over:
            return
        staying = sum(member.stage is not Stage.RETIRING and member.lost_at is None for member in self.members)
        for _ in range(staying, self.wanted):
            try:
                self._hire()
            except (OSError, WorkerStartError, OutOfMemoryError) as error:
                self._start_failed(f"{error}", error if isinstance(error, OutOfMemoryError) else None)
                return

    def _hire(self) -> None:
        pool = self._pool
        learnt = {"load": self._load, "curve": self._curve}
        member = hire(pool, self._launcher, self._place(), learnt, self._descriptors)
        self.members.append(member)
        pool.supervisor.watch(member.control, lambda: self._hear(member))
        pool.supervisor.watch(member.errors, lambda: self._read_errors(member))

    def _place(self) -> Sequence[int]:
        """The processors to keep to: those that fewest others keep to."""
        taken = [member.place for member in self.members]
        return min(self._pool.places, key=taken.count)

    # Hearing.

    def _hear(self, member: Member) -> None:
        try:
            message, _ = messages.receive(member.control)
        except (EOFError, OSError):
            self._lose(member)
            return
        if "ready" in message:
            self._welcome(member, message["ready"])
        elif "failed" in message:
            member.killed_for = "failed"
            self._give_up(wire.decode_error(message["failed"].encode()))

    def _welcome(self, member: Member, news: Mapping[str, Any]) -> None:
        self._back_off.reset()
        self._curve = news["curve"] or self._curve
        if member.stage is not Stage.STARTING:
            return
        member.stage = Stage.READY
        with self._pool.lock:
            busy = self.dispatcher.add(member.lane)
        if busy:
            member.lane.sender.wake()
        self._tell()

    def _read_errors(self, member: Member) -> None:
        try:
            content = os.read(member.errors, 1 << 16)
        except BlockingIOError:
            return
        if not content:
            self._pool.supervisor.unwatch(member.errors)
            return
        member.lines.extend(content.decode(errors="replace").splitlines())

    def _hear_launcher(self, hear: Callable[[], bool]) -> None:
        if hear():
            for member in list(self.members):
                if member.lost_at is not None and member.handle.exit_code is not None:
                    self._bury(member)
            return
        # The zygote died, and its workers with it: begin anew.
        _log.warning("The process that workers are forked from died; starting another one.")
        for source in self._launcher.sockets():
            self._pool.supervisor.unwatch(source)
        self._launcher.close()
        for member in list(self.members):
            self._lose(member)
            self._bury(member)
        try:
            self._launcher = self._make_launcher()
        except ModelServeError as error:
            self._give_up(error)
            return
        self.open()
        self._hire_wanted()

    # Dying.

    def _lose(self, member: Member) -> None:
        """Its control socket closed; how it ended is known in a moment."""
        if member.lost_at is None:
            member.lost_at = time.monotonic()
            self._pool.supervisor.unwatch(member.control)
            self._launcher.reap()
        if member.handle.exit_code is not None:
            self._bury(member)

    def _bury(self, member: Member) -> None:
        if member not in self.members:
            return
        self._read_errors(member)
        how = member.killed_for or self._how(member)
        was = member.stage
        with self._pool.lock:
            if member.lane in self.dispatcher.lanes:
                answered, _ = self.dispatcher.collect(member.lane)
                suspects = self.dispatcher.lose(member.lane)
            else:
                answered, suspects = [], []
            self.dispatcher.put_first(self._pool.poisoned(suspects, how))
            woken = self.dispatcher.feed_all()
            if self.dispatcher.queue and not self.wanted:
                self.wanted = 1  # it was to be the last one, and has left requests behind
        for pending in answered:
            pending.notify(None)
        for lane in woken:
            lane.sender.wake()
        self.past_lines.extend(member.lines)
        self._drop(member)
        if member.handle.refusal:
            self._start_failed(
                "", OutOfMemoryError(f"No memory for another worker ({member.handle.refusal}). Scale to fewer workers.")
            )
        elif was is Stage.STARTING and self.failure is None:
            self._start_failed(f"A worker {how} while it loaded the model.")
        elif was is Stage.READY:
            self.restarts += 1
            _log.warning("A worker %s; it is replaced.", how)
        self._hire_wanted()
        self._tell()

    def _how(self, member: Member) -> str:
        """How its process ended, in words."""
        code = member.handle.exit_code
        if code is None:
            return "left"
        kills, self._memory_kills = self._memory_kills, usage.out_of_memory_kills()
        if code == -signal.SIGKILL and self._memory_kills > kills:
            return f"{cause(code)} because the machine, or its control group, had no memory left"
        return cause(code)

    def _start_failed(self, what: str, error: ModelServeError | None = None) -> None:
        self._back_off.note_failure()
        if not self._back_off.is_hopeless:
            return
        reason = error or WorkerStartError(f"{what} Tried {self._back_off.failed_starts} times.{self.last_words()}")
        if self.ready:
            # Those who are there go on; whoever asked for more is told.
            self.shortage = reason
            self._tell()
        else:
            self._give_up(reason)

    def _give_up(self, error: ModelServeError) -> None:
        self.failure = error
        self._pool.give_up(self, error)
        self._tell()

    def _kill(self, member: Member, why: str) -> None:
        member.killed_for = why
        member.retire_by = None
        member.handle.kill()

    # Leaving.

    def _retire(self, member: Member, drain_s: float) -> None:
        if member.stage is Stage.STARTING:
            self._drop(member)
            return
        with self._pool.lock:
            self.dispatcher.retire(member.lane)
        member.stage = Stage.RETIRING
        member.retire_by = time.monotonic() + max(0.0, drain_s)
        if not member.lane.outstanding:
            self._dismiss(member)

    def _dismiss(self, member: Member) -> None:
        with self._pool.lock:
            if member.lane in self.dispatcher.lanes:
                self.dispatcher.lanes.remove(member.lane)
        self.past_lines.extend(member.lines)
        self._drop(member)
        self._tell()

    def _drop(self, member: Member) -> None:
        """Close everything of a member; its process ends if it has not yet."""
        if member in self.members:
            self.members.remove(member)
        for source in (member.control, member.errors):
            self._pool.supervisor.unwatch(source)
        if member.stage is Stage.STARTING:
            member.handle.kill()
        close_both(member.control, member.errors)
        member.handle.forget()
        self._pool.slots.add(member.slot)

    def _tell(self) -> None:
        with self._pool.changed:
            self._pool.changed.notify_all()
