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
import threading
import time
from collections.abc import Sequence
from functools import partial

from modelserve.bundle import Bundle, LiveCallable
from modelserve.errors import (
    DeploymentClosedError,
    ForkedProcessError,
    InvalidScaleError,
    ModelServeError,
    OverloadedError,
    WorkerStartError,
)
from modelserve.runtime import usage
from modelserve.runtime.autoscale import Autoscaler
from modelserve.runtime.bell import Bell
from modelserve.runtime.channel import RESERVED_BYTES, SLOTS, Alarm
from modelserve.runtime.cores import places, usable_cores
from modelserve.runtime.crew import Crew
from modelserve.runtime.dispatch import Dispatcher, Lane
from modelserve.runtime.listener import Listener
from modelserve.runtime.loading import launcher_maker, load_order
from modelserve.runtime.member import Surroundings
from modelserve.runtime.memory import Arena
from modelserve.runtime.pending import Pending
from modelserve.runtime.placement import Placement
from modelserve.runtime.quarantine import Quarantine, poison
from modelserve.runtime.settings import PoolSettings, PoolStatus, WorkerStatus
from modelserve.runtime.supervisor import Supervisor
from modelserve.runtime.worker import body_offset
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
        self._lock = threading.Lock()
        self._closed = False
        self._ended = False
        #: Rows above which one request is answered sooner in parts by all workers; None where it never is.
        self.split_rows: int | None = None
        self._quarantine = Quarantine()
        self._changed = threading.Condition()
        self._autoscaler: Autoscaler | None = None
        self._cores = usable_cores()
        limit_bytes = self.settings.max_bytes or usage.memory_limit_bytes() // 4
        self._arena = Arena(reserved_bytes=RESERVED_BYTES, limit_bytes=limit_bytes)
        self._bell = Bell.create()
        self._listener = Listener(self._bell, Alarm(self._arena.view), self._collect, self._has_answers, self._spin_ns)
        self._placement = Placement(self._arena, self._listener)
        self._supervisor = Supervisor(self._tick)
        self._pool = Surroundings(
            supervisor=self._supervisor,
            lock=self._lock,
            view=self._arena.view,
            arena_descriptor=self._arena.descriptor,
            arena_bytes=len(self._arena.mapping),
            answer_bell=self._bell,
            slots=set(range(SLOTS)),
            run_timeout_s=self.settings.timeout_s,
            latency_budget_s=self.settings.latency_budget_s,
            places=places(self.settings.threads) if self.settings.pin else [()],
            may_spin=self._cores > 1,
            changed=self._changed,
            poisoned=self._poisoned,
            give_up=self._fail_queue,
        )
        self._crews: list[Crew] = []
        self._supervisor.start()
        try:
            self._crew = self._raise_crew(servable)
            self.scale(workers, timeout_s=self.settings.start_timeout_s)
        except BaseException:
            self.close(drain_s=0)
            raise

    # Requests.

    def submit(self, message: Message, rows: int, timeout_s: float | None = None) -> Pending:
        """Send a request on its way.

        Raises:
            OverloadedError: too much is under way.
            PoisonedRequestError: this request has just been found to kill workers.
            DeploymentClosedError, ForkedProcessError, WorkerStartError: nobody is there to answer.
        """
        self._check_usable()
        how = self._quarantine.why(message)
        if how is not None:
            raise poison(how)
        pending = self._placement.place(message, rows, self.settings.timeout_s if timeout_s is None else timeout_s)
        with self._lock:
            if self._ended:
                raise DeploymentClosedError("The workers were closed. Serve the model again.")
            crew = self._crew
            dispatcher = crew.dispatcher
            if dispatcher.inflight >= self.settings.max_inflight:
                raise self._overloaded(dispatcher)
            lane = dispatcher.submit(pending)
        if lane is not None:
            lane.sender.wake()
        elif crew.failure is not None:
            self._fail_queue(crew, crew.failure)
        elif not crew.wanted:
            self._supervisor.post(self._wake)
        if pending.timeout_s < _IDLE_TICK_S * 2:
            self._supervisor.post(_nothing)
        return pending

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
            for crew in self._crews:
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
        if here is not None or len(self._crews) > 1:
            self._listener.nudge()
        if drained:
            self._supervisor.post(self._settle_all)

    def _has_answers(self) -> bool:
        return any(lane.sender.has_answers() for crew in self._crews for lane in crew.dispatcher.lanes)

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
        if lane is None or self._cores < 2 or len(self._crews) > 1 or self._crew.dispatcher.inflight > 1:
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
        self._autoscaler = None
        crew = self._crew
        before = crew.wanted
        self._supervisor.call(lambda: crew.resize(workers, drain_s=self.settings.drain_s))
        try:
            self._await_ready(crew, workers, timeout_s)
        except ModelServeError:
            if crew.failure is None:  # as it was before, rather than half-way
                self._supervisor.call(lambda: crew.resize(min(before, workers), drain_s=self.settings.drain_s))
            raise

    def autoscale(self, minimum: int, maximum: int, target_inflight: float) -> None:
        """Have between `minimum` and `maximum` workers, so that each has about `target_inflight` requests under way."""
        self._check_usable()
        start = min(max(minimum, self._crew.wanted), maximum)
        self.scale(start)
        self._autoscaler = Autoscaler(minimum, maximum, target_inflight)
        self._supervisor.post(_nothing)

    def update(self, servable: Bundle | LiveCallable, *, timeout_s: float = 120.0) -> None:
        """Answer with another model from now on. Requests under way finish with the old one; none fails or mixes.

        Raises:
            ModelServeError: the new model could not be loaded; the old one goes on answering.
        """
        self._check_usable()
        old = self._crew
        new = self._raise_crew(servable)
        workers = max(old.wanted, 1)
        try:
            self._supervisor.call(lambda: new.resize(workers, drain_s=0))
            self._await_ready(new, workers, timeout_s)
        except BaseException:
            self._supervisor.call(lambda: self._discard(new, "The update failed."))
            raise
        with self._lock:
            self._crew = new
        self._supervisor.call(lambda: old.leave(drain_s=self.settings.drain_s))

    def status(self) -> PoolStatus:
        """How it is now."""
        crew = self._crew
        workers = []
        for member in list(crew.members):
            private_bytes, shared_bytes = usage.memory_of(member.handle.pid)
            runs, rows = member.lane.sender.runs_and_rows if not self._closed else (0, 0)
            workers.append(WorkerStatus(member.handle.pid, member.stage, runs, rows, private_bytes, shared_bytes))
        with self._lock:
            inflight = sum(crew.dispatcher.inflight for crew in self._crews)
        return PoolStatus(crew.digest, crew.wanted, crew.ready, inflight, crew.restarts, tuple(workers), crew.failure)

    def logs(self) -> list[str]:
        """The last lines that workers printed, oldest first."""
        crew = self._crew
        return [*crew.past_lines, *(line for member in list(crew.members) for line in list(member.lines))]

    def close(self, *, drain_s: float | None = None) -> None:
        """Let requests under way finish, for so long, then end every process. Quiet when called twice."""
        if self._closed or self._home != _generation:
            return
        self._closed = True
        end = time.monotonic() + (self.settings.drain_s if drain_s is None else drain_s)
        while time.monotonic() < end and self._unanswered():
            self._collect(None)
            time.sleep(0.002)
        self._supervisor.call(self._close_all)
        self._supervisor.stop()
        self._listener.close()
        self._arena.close()

    # In the supervisor's thread.

    def _tick(self) -> float:
        now = time.monotonic()
        for crew in list(self._crews):
            crew.tick(now)
            if crew.leaving and not crew.members and not crew.wanted:
                self._discard(crew, "The model was updated, and the old one did not finish this request in time.")
        self._expire(time.monotonic_ns())
        if self._has_answers():
            self._collect(None)
            self._listener.nudge()
        busy = any(crew.dispatcher.inflight or crew.ready != crew.wanted for crew in self._crews)
        self._autoscale(now)
        self.split_rows = self._find_split_rows()
        return _BUSY_TICK_S if busy or self._autoscaler else _IDLE_TICK_S

    def _find_split_rows(self) -> int | None:
        # A part costs a wake-up and its share of the copying; it has to save several times that.
        lanes = [lane for crew in self._crews[-1:] for lane in crew.dispatcher.lanes if lane.open]
        row_ns = max((lane.sender.row_ns for lane in lanes), default=0)
        if len(lanes) < 2 or self._cores < 2 or not row_ns:
            return None
        return max(2, _WORTH_SPLITTING_NS // row_ns)

    def _autoscale(self, now: float) -> None:
        if self._autoscaler is None:
            return
        crew = self._crew
        with self._lock:
            inflight = crew.dispatcher.inflight
        wanted = self._autoscaler.decide(crew.wanted, inflight, now)
        if wanted != crew.wanted:
            crew.resize(wanted, drain_s=self.settings.drain_s)

    def _wake(self) -> None:
        """A request came while nobody works."""
        crew = self._crew
        if not crew.wanted and not self._closed:
            crew.resize(1, drain_s=0)

    def _settle_all(self) -> None:
        for crew in list(self._crews):
            crew.settle()

    def _expire(self, now_ns: int) -> None:
        late: list[Pending] = []
        with self._lock:
            for crew in self._crews:
                dispatcher = crew.dispatcher
                waiting = [pending for pending in dispatcher.queue if pending.deadline_ns < now_ns]
                for pending in waiting:
                    dispatcher.queue.remove(pending)
                under_way = (pending for lane in dispatcher.lanes for pending in lane.outstanding.values())
                late += waiting
                late += [one for one in under_way if one.deadline_ns < now_ns and not one.answered]
        for pending in late:
            if not pending.answered:
                pending.expire()
            pending.notify(None)
        if late:
            self._listener.nudge()

    def _poisoned(self, suspects: Sequence[Pending], how: str) -> list[Pending]:
        """Those that may run again; whoever killed too many workers alone is answered with the cause. Lock held."""
        again = []
        for pending in suspects:
            if pending.lonely_deaths < _LONELY_DEATHS:
                again.append(pending)
                continue
            start, header_bytes, body_bytes = pending.entry[1:4]
            body_at = body_offset(start, header_bytes)
            view = self._arena.view
            self._quarantine.add((view[start : start + header_bytes], view[body_at : body_at + body_bytes]), how)
            pending.fail(poison(how))
            self._supervisor.post(partial(self._notify, pending))
        return again

    def _notify(self, pending: Pending) -> None:
        pending.notify(None)
        self._listener.nudge()

    def _fail_queue(self, crew: Crew, error: ModelServeError) -> None:
        """Nobody will come to answer."""
        with self._lock:
            waiting = list(crew.dispatcher.queue)
            crew.dispatcher.queue.clear()
        for pending in waiting:
            pending.fail(error)
            pending.notify(None)
        self._listener.nudge()

    def _discard(self, crew: Crew, why: str) -> None:
        """End a crew at once; whoever still waits for it is told why there will be no answer."""
        with self._lock:
            left = [pending for lane in crew.dispatcher.lanes for pending in lane.outstanding.values()]
        self._fail_queue(crew, DeploymentClosedError(why))
        crew.close()
        with self._lock:
            self._crews = [other for other in self._crews if other is not crew]
        for pending in left:
            if not pending.answered:
                pending.fail(DeploymentClosedError(why))
            pending.notify(None)
        self._listener.nudge()

    def _close_all(self) -> None:
        with self._lock:
            self._ended = True
        for crew in list(self._crews):
            self._discard(crew, "The workers were closed before this request was answered.")

    # Crews.

    def _raise_crew(self, servable: Bundle | LiveCallable) -> Crew:
        """A crew for this model, with nobody hired yet; where the zygote loads the model, it has loaded it."""
        load, descriptors = load_order(servable, self.settings)
        try:
            launcher = launcher_maker(servable, self.settings, load, descriptors)
            crew = Crew(self._pool, launcher, load, descriptors, servable.digest)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self._supervisor.call(crew.open)
        with self._lock:
            self._crews = [*self._crews, crew]
        return crew

    def _await_ready(self, crew: Crew, workers: int, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        with self._changed:
            while crew.ready < workers or len(crew.members) > max(workers, crew.wanted):
                if crew.failure is not None:
                    raise crew.failure
                if crew.shortage is not None:
                    raise crew.shortage
                left_s = end - time.monotonic()
                if left_s <= 0:
                    raise WorkerStartError(
                        f"{crew.ready} of {workers} workers were ready after {timeout_s:g} s.{crew.last_words()}"
                    )
                self._changed.wait(min(left_s, 0.5))

    def _unanswered(self) -> bool:
        with self._lock:
            return any(crew.dispatcher.inflight for crew in self._crews)


def _nothing() -> None:
    """Posted to make the supervisor look at its clock."""
