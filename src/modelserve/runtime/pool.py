"""N worker processes answering for one model.

    submit ──► block in shared memory ──► dispatcher ──► channel ──► worker
                                                                       │
    result ◄── listener (the waiting thread or task itself) ◄── bell ◄─┘

    supervisor thread: hires, hears, buries, replaces; no request passes through it

A request is written once into memory that every worker maps. When its worker dies it is simply given to another one;
inference has no side effect, so it may run again until its deadline.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable

from modelserve.bundle import Bundle, LiveCallable
from modelserve.errors import (
    DeploymentClosedError,
    ForkedProcessError,
    InvalidScaleError,
    ModelChangedError,
    OverloadedError,
)
from modelserve.runtime import usage
from modelserve.runtime.autoscale import Autoscaler
from modelserve.runtime.bell import Bell
from modelserve.runtime.channel import RESERVED_BYTES, SLOTS, Alarm
from modelserve.runtime.crew import Crew
from modelserve.runtime.dispatch import Dispatcher, Lane
from modelserve.runtime.gathering import Gathering
from modelserve.runtime.joint import Share
from modelserve.runtime.listener import Listener
from modelserve.runtime.memory import Arena
from modelserve.runtime.pending import Pending
from modelserve.runtime.placement import Placement
from modelserve.runtime.quarantine import poison
from modelserve.runtime.roster import IDLE_TICK_S, Roster
from modelserve.runtime.settings import PoolSettings, PoolStatus, WorkerStatus
from modelserve.wire import Message

# A request whose workers died this often while they ran nothing else is what kills them.
_LONELY_DEATHS = 3
_BUSY_TICK_S = 0.05
_IDLE_TICK_S = 1.0
_LONGEST_SPIN_NS = 200_000
_WORTH_SPLITTING_NS = 500_000

_forks = itertools.count()
_generation = next(_forks)


def _forked() -> None:
    global _generation  # one number for the whole process, as there is one process
    _generation = next(_forks)


os.register_at_fork(after_in_child=_forked)


class WorkerPool:
    """Worker processes for one model. May be used from many threads and tasks at once, never from a forked child.

    Args:
        workers: How many to start; the call returns when all of them are ready.

    Raises:
        WorkerStartError: they could not start; the workers' last lines are in the message.
        ModelServeError: what loading the model raised.
    """

    def __init__(
        self, servable: Bundle | LiveCallable, *, workers: int = 1, settings: PoolSettings | None = None
    ) -> None:
        self.settings = settings or PoolSettings()
        self._home = _generation
        self._closed = False
        limit_bytes = self.settings.max_bytes or usage.memory_limit_bytes() // 4
        self._arena = Arena(reserved_bytes=RESERVED_BYTES, limit_bytes=limit_bytes)
        self._bell = Bell.create()
        self._listener = Listener(self._bell, Alarm(self._arena.view), self._collect, self._has_answers, self._spin_ns)
        self._placement = Placement(self._arena, self._listener)
        self._gathering = Gathering(self._placement, self, self.settings.max_inflight)
        self._roster = Roster(self.settings, self._arena, self._bell, self._listener, self._look)
        self._lock = self._roster.lock
        try:
            self._roster.open(servable)
            self.scale(workers, timeout_s=self.settings.start_timeout_s)
        except BaseException:
            self.close(drain_s=0)
            raise

    @property
    def split_rows(self) -> int | None:
        """Rows above which one request is answered sooner in parts by all workers; None where it never is."""
        return self._roster.split_rows

    # Requests.

    def submit(
        self, message: Message, rows: int, timeout_s: float | None = None, *, digest: str | None = None
    ) -> Pending | Share:
        """Send a request on its way.

        Args:
            digest: Of the model that the request was made for; None where it is for whichever is there.

        Raises:
            ModelChangedError: another model answers by now.
            OverloadedError: too much is under way.
            PoisonedRequestError: this request has just been found to kill workers.
            DeploymentClosedError, ForkedProcessError, WorkerStartError: nobody is there to answer.
        """
        self._check_usable()
        seconds = self.settings.timeout_s if timeout_s is None else timeout_s
        roster = self._roster
        if not roster.quarantine.until:
            share = self._gathering.join(message, seconds, digest, roster.current)
            if share is not None:
                return share
        return self.submit_alone(message, rows, seconds, digest)

    def submit_alone(self, message: Message, rows: int, timeout_s: float, digest: str | None) -> Pending:
        """As `submit`, and never together with others."""
        how = self._roster.quarantine.why(message)
        if how is not None:
            raise poison(how)
        pending = self._placement.place(message, rows, timeout_s)
        self.send(pending, digest)
        return pending

    def send(self, pending: Pending, digest: str | None) -> None:
        """Give a request that was placed to a worker, or have it wait for one. Raises as `submit`."""
        roster = self._roster
        with self._lock:
            if roster.ended:
                raise DeploymentClosedError("The workers were closed. Serve the model again.")
            crew = roster.current
            if digest is not None and digest != crew.digest:
                raise ModelChangedError("The model was updated after this request was read. Read it again.")
            dispatcher = crew.dispatcher
            if dispatcher.inflight - pending.count + 1 >= self.settings.max_inflight:
                raise self._overloaded(dispatcher)
            lane = dispatcher.submit(pending)
        if lane is not None:
            lane.sender.wake()
        elif crew.failure is not None:
            roster.fail_queue(crew, crew.failure)
        elif not crew.wanted:
            roster.wake()
        if pending.timeout_s < IDLE_TICK_S * 2:
            roster.look_at_the_clock()

    def _overloaded(self, dispatcher: Dispatcher) -> OverloadedError:
        service_s = max((lane.sender.service_ns for lane in dispatcher.lanes), default=0) / 1e9
        wait_s = dispatcher.inflight * service_s / max(1, len(dispatcher.lanes))
        return OverloadedError(
            f"{dispatcher.inflight} requests are under way, and at most {self.settings.max_inflight} may be. "
            "Wait for answers before sending more, or scale to more workers.",
            retry_after_s=min(max(wait_s, 0.01), 30.0),
        )

    def _check_usable(self) -> None:
        if self._home != _generation:
            raise ForkedProcessError(
                "This process is a fork of the one that owns the workers. Serve the model again in this process."
            )
        if self._closed:
            raise DeploymentClosedError("The workers were closed. Serve the model again.")

    def _collect(self, here: asyncio.AbstractEventLoop | None) -> None:
        """Hand out what the workers have answered, and give them what waits."""
        answered: list[Pending] = []
        woken: list[Lane] = []
        drained = False
        with self._lock:
            for crew in self._roster.crews:
                dispatcher = crew.dispatcher
                for lane in dispatcher.lanes:
                    if not lane.sender.has_answers():
                        continue
                    found, too_large = dispatcher.collect(lane)
                    answered += found
                    for pending, needed in too_large:
                        self._fetch(crew, lane, pending, needed, answered)
                    if dispatcher.feed(lane) or too_large:
                        woken.append(lane)
                    drained |= (not lane.open or crew.leaving) and not lane.outstanding
        for lane in woken:
            lane.sender.wake()
        for pending in answered:
            pending.notify(here)
        if here is not None or len(self._roster.crews) > 1:
            self._listener.nudge()
        if drained:
            self._roster.settle()

    def _look(self) -> None:
        """Hand out what nobody else is there to hand out."""
        if self._has_answers():
            self._collect(None)
            self._listener.nudge()

    def _has_answers(self) -> bool:
        return any(lane.sender.has_answers() for crew in self._roster.crews for lane in crew.dispatcher.lanes)

    def _fetch(self, crew: Crew, lane: Lane, pending: Pending, needed: int, answered: list[Pending]) -> None:
        """The answer is larger than was thought: have the worker write it where there is room."""
        try:
            self._placement.enlarge(pending, needed)
        except OverloadedError as error:
            lane.outstanding.pop(pending.entry[0])
            lane.rows -= pending.rows
            pending.fail(error)
            answered.append(pending)
            return
        crew.dispatcher.fetch(lane, pending)

    def _spin_ns(self, pending: Pending) -> int:
        """A lone caller of a quick model looks again and again: the answer comes sooner than a sleeper wakes."""
        lane = pending.lane
        roster = self._roster
        if lane is None or roster.cores < 2 or len(roster.crews) > 1 or roster.current.dispatcher.inflight > 1:
            return 0
        sender = lane.sender
        service_ns = sender.service_ns
        # Sleeping costs this thread a wake-up, too, and the worker may have to be woken before it begins.
        return 2 * service_ns + 20_000 + sender.wake_ns if service_ns < _LONGEST_SPIN_NS else 0

    # What users ask for.

    def scale(self, workers: int, *, timeout_s: float = 120.0) -> None:
        """Have this many workers. Returns when they are ready, and those too many have finished what they had.

        Raises:
            InvalidScaleError: below 0, or more than fit.
            WorkerStartError: they could not start in time.
        """
        self._check_usable()
        if not isinstance(workers, int) or isinstance(workers, bool) or not 0 <= workers <= SLOTS // 2:
            raise InvalidScaleError(f"Workers must be a whole number from 0 to {SLOTS // 2}, got {workers!r}.")
        self._roster.resize(workers, timeout_s)

    def autoscale(self, minimum: int, maximum: int, target_inflight: float) -> None:
        """Have between `minimum` and `maximum` workers, so that each has about `target_inflight` requests under way."""
        self._check_usable()
        self.scale(min(max(minimum, self._roster.current.wanted), maximum))
        self._roster.autoscale(Autoscaler(minimum, maximum, target_inflight))

    def update(
        self,
        servable: Bundle | LiveCallable,
        *,
        timeout_s: float = 120.0,
        switched: Callable[[], None] | None = None,
    ) -> None:
        """Answer with another model from now on. Requests under way finish with the old one; none fails or mixes.

        Args:
            switched: Called at the moment of the change, while no request can be sent; must not wait for anything.

        Raises:
            ModelServeError: the new model could not be loaded; the old one goes on answering.
        """
        self._check_usable()
        self._roster.update(servable, timeout_s, switched or _nothing)

    def status(self) -> PoolStatus:
        """How it is now."""
        crew = self._roster.current
        workers = []
        for member in list(crew.members):
            private_bytes, shared_bytes = usage.memory_of(member.handle.pid)
            runs, rows = member.lane.sender.runs_and_rows if not self._closed else (0, 0)
            workers.append(WorkerStatus(member.handle.pid, member.stage, runs, rows, private_bytes, shared_bytes))
        with self._lock:
            inflight = sum(crew.dispatcher.inflight for crew in self._roster.crews)
        return PoolStatus(crew.digest, crew.wanted, crew.ready, inflight, crew.restarts, tuple(workers), crew.failure)

    def logs(self) -> list[str]:
        """The last lines that workers printed, oldest first."""
        crew = self._roster.current
        return [*crew.past_lines, *(line for member in list(crew.members) for line in list(member.lines))]

    def close(self, *, drain_s: float | None = None) -> None:
        """Let requests under way finish, for so long, then end every process. Quiet when called twice."""
        if self._closed or self._home != _generation:
            return
        self._closed = True
        self._gathering.send_all()
        end = time.monotonic() + (self.settings.drain_s if drain_s is None else drain_s)
        while time.monotonic() < end and self._unanswered():
            self._collect(None)
            time.sleep(0.002)
        self._roster.close()
        self._listener.close()
        self._arena.close()

    def _unanswered(self) -> bool:
        with self._lock:
            return any(crew.dispatcher.inflight for crew in self._roster.crews)


def _nothing() -> None:
    """What happens beside a change that nobody follows."""
