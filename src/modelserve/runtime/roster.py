"""The crews of one pool: the one that answers, and those that an update has let go.

    raised ──► answers (`current`) ── update ──► leaving ── drained ──► discarded

    tick: what each crew has to do ─ requests that are late ─ as many workers as the load asks for ─ when to split

What touches a dispatcher takes the lock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from modelserve.bundle import Bundle, LiveCallable
from modelserve.errors import DeploymentClosedError, ModelServeError, WorkerStartError
from modelserve.runtime.autoscale import Autoscaler
from modelserve.runtime.bell import Bell
from modelserve.runtime.channel import SLOTS, body_offset
from modelserve.runtime.cores import places, usable_cores
from modelserve.runtime.crew import Crew
from modelserve.runtime.listener import Listener
from modelserve.runtime.loading import launcher_maker, load_order
from modelserve.runtime.member import Surroundings
from modelserve.runtime.memory import Arena
from modelserve.runtime.pending import Pending
from modelserve.runtime.quarantine import Quarantine, poison
from modelserve.runtime.settings import PoolSettings
from modelserve.runtime.supervisor import Supervisor

# A request whose workers died this often while they ran nothing else is what kills them.
_LONELY_DEATHS = 3
_BUSY_TICK_S = 0.05
#: Seconds between two looks at the clock while there is nothing to do.
IDLE_TICK_S = 1.0
_WORTH_SPLITTING_NS = 500_000


class Roster:
    """Who works for a pool.

    Args:
        look: Hands out the answers that are there.

    Attributes:
        current: Whom new requests go to; read it with the lock held.
        split_rows: Rows above which one request is answered sooner in parts by all workers; None where it never is.
    """

    current: Crew

    def __init__(
        self, settings: PoolSettings, arena: Arena, bell: Bell, listener: Listener, look: Callable[[], None]
    ) -> None:
        self.crews: list[Crew] = []
        #: Held while anybody touches a dispatcher.
        self.lock = threading.Lock()
        self.quarantine = Quarantine()
        self.supervisor = Supervisor(self._tick)
        self.cores = usable_cores()
        self.split_rows: int | None = None
        #: Set once nobody will answer any more.
        self.ended = False
        self._settings = settings
        self._arena = arena
        self._listener = listener
        self._look = look
        self._changed = threading.Condition()
        self._autoscaler: Autoscaler | None = None
        self._surroundings = Surroundings(
            supervisor=self.supervisor,
            lock=self.lock,
            view=arena.view,
            arena_descriptor=arena.descriptor,
            arena_bytes=len(arena.mapping),
            answer_bell=bell,
            slots=set(range(SLOTS)),
            run_timeout_s=settings.timeout_s,
            latency_budget_s=settings.latency_budget_s,
            places=places(settings.threads) if settings.pin else [()],
            may_spin=self.cores > 1,
            changed=self._changed,
            poisoned=self._poisoned,
            give_up=self.fail_queue,
        )

    # Asked for by the pool, from any thread.

    def open(self, servable: Bundle | LiveCallable) -> None:
        """Begin with this model, and with nobody hired yet."""
        self.supervisor.start()
        self.current = self._raise_crew(servable)

    def resize(self, workers: int, timeout_s: float) -> None:
        """Have this many workers; when they cannot start it is as it was before, rather than half-way."""
        self._autoscaler = None
        crew = self.current
        before = crew.wanted
        self.supervisor.call(lambda: crew.resize(workers, drain_s=self._settings.drain_s))
        try:
            self._await_ready(crew, workers, timeout_s)
        except ModelServeError:
            if crew.failure is None:
                self.supervisor.call(lambda: crew.resize(min(before, workers), drain_s=self._settings.drain_s))
            raise

    def update(self, servable: Bundle | LiveCallable, timeout_s: float, switched: Callable[[], None]) -> None:
        """Have as many workers of another model answer, and let the old ones finish what they have.

        Args:
            switched: Called at the moment of the change, with the lock held.
        """
        old = self.current
        new = self._raise_crew(servable)
        workers = max(old.wanted, 1)
        try:
            self.supervisor.call(lambda: new.resize(workers, drain_s=0))
            self._await_ready(new, workers, timeout_s)
        except BaseException:
            self.supervisor.call(lambda: self._discard(new, "The update failed."))
            raise
        with self.lock:
            self.current = new
            switched()
        self.supervisor.call(lambda: old.leave(drain_s=self._settings.drain_s))

    def autoscale(self, autoscaler: Autoscaler) -> None:
        """Follow the load from now on, until `resize`."""
        self._autoscaler = autoscaler
        self.look_at_the_clock()

    def look_at_the_clock(self) -> None:
        """Have the supervisor notice a deadline that is near."""
        self.supervisor.post(_nothing)

    def wake(self) -> None:
        """A request came while nobody works."""
        self.supervisor.post(self._wake)

    def settle(self) -> None:
        """Let those go who are drained."""
        self.supervisor.post(self._settle)

    def fail_queue(self, crew: Crew, error: ModelServeError) -> None:
        """Nobody will come to answer."""
        with self.lock:
            waiting = list(crew.dispatcher.queue)
            crew.dispatcher.queue.clear()
        for pending in waiting:
            pending.fail(error)
        self._notify(waiting)

    def close(self) -> None:
        """End every worker and the supervisor."""
        self.supervisor.call(self._close_all)
        self.supervisor.stop()

    def _raise_crew(self, servable: Bundle | LiveCallable) -> Crew:
        """A crew for this model; where the zygote loads the model, it has loaded it."""
        load, descriptors = load_order(servable, self._settings)
        try:
            launcher = launcher_maker(servable, self._settings, load, descriptors)
            crew = Crew(self._surroundings, launcher, load, descriptors, servable.digest, may_join=_may_join(servable))
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self.supervisor.call(crew.open)
        with self.lock:
            self.crews = [*self.crews, crew]
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

    # In the supervisor's thread.

    def _tick(self) -> float:
        now = time.monotonic()
        for crew in list(self.crews):
            crew.tick(now)
            if crew.leaving and not crew.members and not crew.wanted:
                self._discard(crew, "The model was updated, and the old one did not finish this request in time.")
        self._expire(time.monotonic_ns())
        self._look()
        self._follow_load(now)
        self.split_rows = self._find_split_rows()
        busy = any(crew.dispatcher.inflight or crew.ready != crew.wanted for crew in self.crews)
        return _BUSY_TICK_S if busy or self._autoscaler else IDLE_TICK_S

    def _expire(self, now_ns: int) -> None:
        late: list[Pending] = []
        with self.lock:
            for crew in self.crews:
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
        self._notify(late)

    def _follow_load(self, now: float) -> None:
        if self._autoscaler is None:
            return
        crew = self.current
        with self.lock:
            inflight = crew.dispatcher.inflight
        wanted = self._autoscaler.decide(crew.wanted, inflight, now)
        if wanted != crew.wanted:
            crew.resize(wanted, drain_s=self._settings.drain_s)

    def _find_split_rows(self) -> int | None:
        # A part costs a wake-up and its share of the copying; it has to save several times that.
        lanes = [lane for crew in self.crews[-1:] for lane in crew.dispatcher.lanes if lane.open]
        row_ns = max((lane.sender.row_ns for lane in lanes), default=0)
        if len(lanes) < 2 or self.cores < 2 or not row_ns:
            return None
        return max(2, _WORTH_SPLITTING_NS // row_ns)

    def _wake(self) -> None:
        if not self.current.wanted and not self.ended:
            self.current.resize(1, drain_s=0)

    def _settle(self) -> None:
        for crew in list(self.crews):
            crew.settle()

    def _poisoned(self, suspects: Sequence[Pending], how: str) -> list[Pending]:
        """Those that may run again; whoever killed too many workers alone is answered with the cause. Lock held."""
        again = []
        for pending in suspects:
            if pending.lonely_deaths < (_LONELY_DEATHS if pending.count == 1 else 1):
                again.append(pending)
                continue
            if pending.count > 1:  # one of them, and nobody knows which
                self._refuse(pending, how)
                continue
            start, header_bytes, body_bytes = pending.entry[1:4]
            body_at = body_offset(start, header_bytes)
            view = self._arena.view
            self.quarantine.add((view[start : start + header_bytes], view[body_at : body_at + body_bytes]), how)
            self._refuse(pending, how)
        return again

    def _refuse(self, pending: Pending, how: str) -> None:
        pending.fail(poison(how))
        self.supervisor.post(partial(self._notify, [pending]))

    def _discard(self, crew: Crew, why: str) -> None:
        """End a crew at once; whoever still waits for it is told why there will be no answer."""
        with self.lock:
            left = [pending for lane in crew.dispatcher.lanes for pending in lane.outstanding.values()]
        self.fail_queue(crew, DeploymentClosedError(why))
        crew.close()
        with self.lock:
            self.crews = [other for other in self.crews if other is not crew]
        for pending in left:
            if not pending.answered:
                pending.fail(DeploymentClosedError(why))
        self._notify(left)

    def _close_all(self) -> None:
        with self.lock:
            self.ended = True
        for crew in list(self.crews):
            self._discard(crew, "The workers were closed before this request was answered.")

    def _notify(self, done: Iterable[Pending]) -> None:
        """Tell whoever waits for these; quiet when there is nobody."""
        for pending in done:
            pending.notify(None)
        self._listener.nudge()


def _may_join(servable: Bundle | LiveCallable) -> bool:
    """Whether its requests can be run as one, and the answer be divided by bytes."""
    signature = servable.signature
    is_text = any(spec.dtype == "string" for spec in signature.outputs)
    return servable.rows_independent and signature.is_batched and not is_text


def _nothing() -> None:
    """Posted to make the supervisor look at its clock."""
