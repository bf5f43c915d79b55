"""Which worker runs which request.

    submit ──► an idle worker, or a busy one with room ──► its lane
          └──► queue ──► the next lane with room

      └──► or the busy worker whose run is over before another one could be woken

A busy worker has room for what it will join next, so that it need not wait for the application in between; a slow model
gets one request at a time, so that no request waits behind a long run while another worker is free.
Everything here is called with the pool's lock held, and nothing here waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from modelserve.runtime.channel import ALONE, DEPTH, FETCH, TOO_LARGE, Sender
from modelserve.runtime.pending import Pending

# A run shorter than this is over before the application could send the next request.
_SHORT_RUN_NS = 1_000_000
# A run shorter than this is over before a sleeping worker is awake (measured: 40 to 50 us across cores).
_WAKE_NS = 40_000
# What sending a request costs the application, at least and at most; in between it is measured. A worker that needs
# less for one is never the one that is waited for.
_QUICKEST_PACE_NS, _SLOWEST_PACE_NS = 15_000, 100_000


class Lane:
    """One worker as the dispatcher sees it: its channel and what lies before it."""

    __slots__ = ("open", "outstanding", "rows", "sender")

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.outstanding: dict[int, Pending] = {}
        self.rows = 0
        self.open = True

    def put(self, pending: Pending) -> None:
        self.outstanding[pending.entry[0]] = pending
        self.rows += pending.rows
        pending.lane = self
        self.sender.put(tuple(pending.entry))  # type: ignore[arg-type]  # eight numbers, as `Submission` names them

    def keeps_up(self, pace_ns: int) -> bool:
        """Whether this worker is through with its requests before another one could be woken, or could help.

        Args:
            pace_ns: What the application itself needs for a request.
        """
        sender = self.sender
        return sender.service_ns < max(_WAKE_NS, sender.wake_ns) or sender.request_ns < pace_ns

    def has_room(self) -> bool:
        """Whether one more request is better put here now than kept back."""
        if not self.open:
            return False
        count = len(self.outstanding)
        if count == 0:
            return True
        join_rows = self.sender.join_rows
        if join_rows > 1:
            return self.rows < 2 * join_rows and count < DEPTH
        return count < 2 and self.sender.service_ns < _SHORT_RUN_NS


class Dispatcher:
    """The lanes of one crew, and the requests that wait for one."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.queue: deque[Pending] = deque()
        #: Requests that go together with others, beside the one that stands for them.
        self.gathered = 0
        self._idle: list[Lane] = []
        self._latest: Lane | None = None
        self._sent_ns = 0
        self._pace_ns = _QUICKEST_PACE_NS

    @property
    def inflight(self) -> int:
        """Requests that are not answered yet."""
        return len(self.queue) + sum([len(lane.outstanding) for lane in self.lanes]) + self.gathered

    @property
    def is_busy(self) -> bool:
        """Whether a worker has something to do."""
        return any(lane.outstanding for lane in self.lanes)

    def submit(self, pending: Pending) -> Lane | None:
        """Put a request on a lane; None when it has to wait for one."""
        self._note_pace(time.monotonic_ns(), pending.count)
        lane = self._choose()
        if lane is None:
            self.queue.append(pending)
        else:
            lane.put(pending)
            self._latest = lane
        return lane

    def _note_pace(self, now_ns: int, requests: int) -> None:
        """Follow the shortest times between two requests: in these the application did nothing but send."""
        gap_ns, self._sent_ns = (now_ns - self._sent_ns) // requests, now_ns
        pace_ns = self._pace_ns
        pace_ns += (gap_ns - pace_ns) // 4 if gap_ns < pace_ns else min(gap_ns - pace_ns, pace_ns // 64)
        self._pace_ns = min(max(pace_ns, _QUICKEST_PACE_NS), _SLOWEST_PACE_NS)

    def _choose(self) -> Lane | None:
        latest = self._latest
        if latest is not None and latest.outstanding and latest.keeps_up(self._pace_ns) and latest.has_room():
            return latest
        # The lane that became idle last is chosen first: its worker's caches are warm, and it may still be spinning.
        while self._idle:
            lane = self._idle.pop()
            if lane.open and not lane.outstanding:
                return lane
        if self.queue:
            return None  # others have waited longer
        return min((lane for lane in self.lanes if lane.has_room()), key=_rows, default=None)

    def collect(self, lane: Lane) -> tuple[list[Pending], list[tuple[Pending, int]]]:
        """The requests that this lane has answered, and those whose answers need blocks of so many bytes."""
        answered: list[Pending] = []
        too_large: list[tuple[Pending, int]] = []
        for ticket, status, header_bytes, body_bytes, began_ns, computed_ns, joined in lane.sender.collect():
            pending = lane.outstanding[ticket]
            if not pending.began_ns:  # an answer that is fetched comes again, during another run
                pending.began_ns, pending.computed_ns, pending.joined = began_ns, computed_ns, joined
            if status == TOO_LARGE:
                too_large.append((pending, body_bytes))
                continue
            del lane.outstanding[ticket]
            lane.rows -= pending.rows
            if pending.answered:  # too late: its caller has given up
                pending.release()
                continue
            pending.settle(status, header_bytes, body_bytes)
            answered.append(pending)
        return answered, too_large

    def fetch(self, lane: Lane, pending: Pending) -> None:
        """Ask the lane once more for an answer that it holds, now that there is a block for it."""
        pending.entry[6] |= FETCH
        lane.sender.put(tuple(pending.entry))  # type: ignore[arg-type]  # eight numbers, as `Submission` names them
        pending.entry[6] &= ~FETCH

    def feed(self, lane: Lane) -> bool:
        """Give a lane what waits for it; True when it got something."""
        if not lane.open:
            return False
        fed = False
        while self.queue and lane.has_room():
            lane.put(self.queue.popleft())
            fed = True
        if not lane.outstanding:
            self._idle.append(lane)
        return fed

    def add(self, lane: Lane) -> bool:
        """A worker is ready; True when it got something to do at once."""
        self.lanes.append(lane)
        return self.feed(lane)

    def retire(self, lane: Lane) -> None:
        """Nothing new for this lane."""
        lane.open = False
        self._idle = [idle for idle in self._idle if idle is not lane]
        if self._latest is lane:
            self._latest = None

    def lose(self, lane: Lane) -> list[Pending]:
        """A worker died. What lay before it waits again, first in line; what it was running is returned instead.

        A request that was running may be what killed it: it runs alone from now on, and counts its deaths.
        """
        self.retire(lane)
        self.lanes.remove(lane)
        running, _ = lane.sender.running()
        suspects = [lane.outstanding[ticket] for ticket in running if ticket in lane.outstanding]
        for pending in suspects:
            pending.lonely_deaths += len(suspects) == 1
            pending.entry[6] |= ALONE
        innocent = [pending for pending in lane.outstanding.values() if pending not in suspects]
        lane.outstanding.clear()
        self.put_first(innocent)
        return suspects

    def put_first(self, again: Iterable[Pending]) -> None:
        """Requests that have waited longest already."""
        for pending in reversed(list(again)):
            pending.lane = None
            self.queue.appendleft(pending)

    def feed_all(self) -> list[Lane]:
        """Give every lane what waits; the lanes to wake."""
        return [lane for lane in self.lanes if self.queue and self.feed(lane)]


def _rows(lane: Lane) -> int:
    return lane.rows
