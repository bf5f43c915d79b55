"""Two rings of fixed entries between the application and one worker, in memory that both map.

    application ── put ──► submissions ── take ──► worker
    application ◄─ collect ─ completions ◄─ complete ── worker

    alarm: one word for all workers; set while somebody in the application sleeps until the bell rings

Each ring has one writer and one reader, who share only the writer's count of entries. An entry is written before the
count that announces it. Who finds nothing sleeps on a bell; the other rings it only for a sleeper, so requests that
come while a worker is busy cost no wake-up. Death is not seen here: a socket beside the channel notices it.
"""

from __future__ import annotations

import platform
import struct
import threading
import time
from typing import NamedTuple

from modelserve.runtime.bell import Bell

#: Entries that one worker can have before it; a power of two.
DEPTH = 256
#: Workers that one mapping has channels for.
SLOTS = 128

_SUBMISSION = struct.Struct("8Q")
_COMPLETION = struct.Struct("7Q")
_WORDS_BYTES = 512
_RUN_AT = _WORDS_BYTES
_SUBMISSIONS_AT = _RUN_AT + 8 * DEPTH
_COMPLETIONS_AT = _SUBMISSIONS_AT + _SUBMISSION.size * DEPTH
CHANNEL_BYTES = -(-(_COMPLETIONS_AT + _COMPLETION.size * DEPTH) // 4096) * 4096
_ALARM_AT = SLOTS * CHANNEL_BYTES
#: What the channels and the alarm take at the start of the shared memory.
RESERVED_BYTES = _ALARM_AT + 4096

# Words at the start of a channel, each written by one side only (SLEEPING by both, see `Sender.wake`).
_SUBMITTED, _COMPLETED, _SLEEPING, _RUN_COUNT, _RUN_SINCE_NS = 0, 8, 16, 17, 18
_JOIN_ROWS, _SERVICE_NS, _RUNS, _ROWS, _TAKEN, _ROW_NS, _REQUEST_NS = 19, 20, 21, 22, 23, 24, 25
_RANG_NS, _WAKE_NS = 26, 27

#: How an entry is to be run.
ALONE = 1  # never joined with others
FETCH = 2  # the answer is ready at the worker; write it into the block given now
#: From this bit on, of how many requests an entry consists; 0 for one.
COUNT_SHIFT = 8

# What became of it.
OK, FAILED, TOO_LARGE, EXPIRED = 0, 1, 2, 3

_ORDERS_STORES = platform.machine().lower() in {"x86_64", "amd64", "i686"}
_fence_lock = threading.Lock()


def fence() -> None:
    """Order what this thread wrote before against what it reads and writes after."""
    with _fence_lock:
        pass
    if not _ORDERS_STORES:
        with _fence_lock:  # acquire and release are each one-way; two of them let nothing through
            pass


def body_offset(offset: int, header_bytes: int) -> int:
    """Where the body lies behind a header: at the next multiple of 64, so that tensors are aligned."""
    return (offset + header_bytes + 63) & ~63


class Submission(NamedTuple):
    """One request. Offsets and sizes in bytes; `deadline_ns` on the monotonic clock."""

    ticket: int
    offset: int
    header_bytes: int
    body_bytes: int
    reply_offset: int
    reply_capacity: int
    flags: int
    deadline_ns: int


class Completion(NamedTuple):
    """One answer, or for TOO_LARGE the bytes that it needs in `body_bytes`.

    Attributes:
        began_ns: When the run that answered it began (monotonic clock).
        computed_ns: When the first answer of that run was there.
        joined: How many requests that run answered.
    """

    ticket: int
    status: int
    header_bytes: int
    body_bytes: int
    began_ns: int
    computed_ns: int
    joined: int


class Alarm:
    """Whether the application wants to be woken by the next answer. Set there, put out by the worker that rings."""

    def __init__(self, view: memoryview) -> None:
        self._word = view[_ALARM_AT : _ALARM_AT + 8].cast("Q")

    def set(self) -> None:
        """From now on the next answer rings. Look for answers after this: those before it did not."""
        if not self._word[0]:
            self._word[0] = 1
        fence()

    def put_out(self) -> None:
        """Answers need not ring for now: somebody looks for them. Set it again afterwards."""
        self._word[0] = 0

    def goes_off(self) -> bool:
        """For a worker that has announced an answer: whether it is the one to ring."""
        fence()
        if not self._word[0]:
            return False
        self._word[0] = 0
        return True


class SpinTurn:
    """Whose turn it is to look again and again for work instead of sleeping: one worker's at a time.

    A worker that spins needs a processor to itself. Taking the turn is not atomic; two spinning for a moment cost
    only time.
    """

    def __init__(self, view: memoryview, slot: int) -> None:
        self._word = view[_ALARM_AT + 64 : _ALARM_AT + 72].cast("Q")
        self._mine = slot + 1

    def take(self) -> None:
        self._word[0] = self._mine

    def is_mine(self) -> bool:
        return self._word[0] == self._mine


class Sender:
    """The application's end of a channel."""

    def __init__(self, view: memoryview, slot: int, bell: Bell) -> None:
        region = view[slot * CHANNEL_BYTES : (slot + 1) * CHANNEL_BYTES]
        region[:_SUBMISSIONS_AT] = bytes(_SUBMISSIONS_AT)
        self._region = region
        self._words = region[:_WORDS_BYTES].cast("Q")
        self._run = region[_RUN_AT:_SUBMISSIONS_AT].cast("Q")
        self._bell = bell
        self._put = 0
        self._collected = 0

    def put(self, submission: tuple[int, int, int, int, int, int, int, int]) -> None:
        """Announce a request. The caller sees to it that no more than DEPTH are before the worker."""
        _SUBMISSION.pack_into(self._region, _SUBMISSIONS_AT + (self._put % DEPTH) * 64, *submission)
        self._put += 1
        if not _ORDERS_STORES:
            fence()
        self._words[_SUBMITTED] = self._put

    def wake(self) -> None:
        """Make sure that the worker looks. Call it after a fence (releasing a lock is one) behind `put`."""
        if self._words[_SLEEPING]:
            self._words[_SLEEPING] = 0
            self._words[_RANG_NS] = time.monotonic_ns()
            self._bell.ring()

    def has_answers(self) -> bool:
        return self._words[_COMPLETED] != self._collected

    def collect(self) -> list[tuple[int, int, int, int, int, int, int]]:
        """All new completions, as `Completion` names their numbers."""
        end = self._words[_COMPLETED]
        if not _ORDERS_STORES:
            fence()
        region, unpack = self._region, _COMPLETION.unpack_from
        size = _COMPLETION.size
        found = [unpack(region, _COMPLETIONS_AT + (at % DEPTH) * size) for at in range(self._collected, end)]
        self._collected = end
        return found

    def running(self) -> tuple[list[int], int]:
        """Tickets of the requests that the worker runs at this moment, and since when (monotonic ns)."""
        count = min(self._words[_RUN_COUNT], DEPTH)
        return self._run[:count].tolist(), self._words[_RUN_SINCE_NS]

    def untouched(self) -> bool:
        """Whether the worker has not yet taken what was put."""
        return self._words[_TAKEN] != self._put

    @property
    def join_rows(self) -> int:
        """Rows that are worth joining in one run; 0 before the worker has found out."""
        return self._words[_JOIN_ROWS]

    @property
    def service_ns(self) -> int:
        """What a run takes at present."""
        return self._words[_SERVICE_NS]

    @property
    def request_ns(self) -> int:
        """What a request costs the worker, shared runs counted in part."""
        return self._words[_REQUEST_NS]

    @property
    def wake_ns(self) -> int:
        """What waking this worker takes, from the ring until it looks; 0 before it was ever woken."""
        return self._words[_WAKE_NS]

    @property
    def row_ns(self) -> int:
        """What a row costs within a large run; 0 before the worker has found out."""
        return self._words[_ROW_NS]

    @property
    def runs_and_rows(self) -> tuple[int, int]:
        """Runs of the model so far, and rows in them."""
        return self._words[_RUNS], self._words[_ROWS]


class Receiver:
    """The worker's end of a channel."""

    def __init__(self, view: memoryview, slot: int, bell: Bell, answer_bell: Bell) -> None:
        region = view[slot * CHANNEL_BYTES : (slot + 1) * CHANNEL_BYTES]
        self._region = region
        self._words = region[:_WORDS_BYTES].cast("Q")
        self._run = region[_RUN_AT:_SUBMISSIONS_AT].cast("Q")
        self.bell = bell
        self._answer_bell = answer_bell
        self._alarm = Alarm(view)
        self._taken = 0
        self._completed = 0
        self._runs = 0
        self._rows = 0
        self._began_ns = 0
        self._computed_ns = 0
        self._joined = 0

    def waiting(self) -> bool:
        """Whether there is something to take."""
        return self._words[_SUBMITTED] != self._taken

    def take(self) -> list[Submission]:
        """All requests that wait."""
        end = self._words[_SUBMITTED]
        if not _ORDERS_STORES:
            fence()
        region, unpack = self._region, _SUBMISSION.unpack_from
        found = [
            Submission._make(unpack(region, _SUBMISSIONS_AT + (at % DEPTH) * 64)) for at in range(self._taken, end)
        ]
        self._taken = end
        self._words[_TAKEN] = end
        return found

    def about_to_sleep(self) -> bool:
        """Say that only a ring wakes this worker from now on; False when something came meanwhile."""
        self._words[_SLEEPING] = 1
        fence()
        if self.waiting():
            self._words[_SLEEPING] = 0
            return False
        return True

    def awake(self) -> None:
        self._words[_SLEEPING] = 0
        self.bell.silence()

    @property
    def rang_ns(self) -> int:
        """When this worker was last rung for (monotonic ns)."""
        return self._words[_RANG_NS]

    def begin(self, tickets: list[int], requests: int, now_ns: int) -> None:
        """Say what is about to run, so that whoever finds this worker dead knows what it died of."""
        run = self._run
        for at, ticket in enumerate(tickets):
            run[at] = ticket
        self._words[_RUN_SINCE_NS] = now_ns
        self._words[_RUN_COUNT] = len(tickets)
        self._began_ns, self._computed_ns, self._joined = now_ns, 0, requests

    def complete(self, completion: tuple[int, int, int, int]) -> None:
        """Write an answer's entry, with the times of its run; `announce` makes it seen."""
        if not self._computed_ns:
            self._computed_ns = time.monotonic_ns()
        at = _COMPLETIONS_AT + (self._completed % DEPTH) * _COMPLETION.size
        _COMPLETION.pack_into(self._region, at, *completion, self._began_ns, self._computed_ns, self._joined)
        self._completed += 1

    def show(self) -> None:
        """Show what is complete so far, while the rest of a run is still being written."""
        if not _ORDERS_STORES:
            fence()
        self._words[_COMPLETED] = self._completed
        if self._alarm.goes_off():
            self._answer_bell.ring()

    def announce(self, rows: int) -> None:
        """Show all completed entries, and say that nothing runs now."""
        words = self._words
        words[_RUN_COUNT] = 0
        self._runs += 1
        self._rows += rows
        words[_RUNS] = self._runs
        words[_ROWS] = self._rows
        self.show()

    def tell_wake(self, wake_ns: int) -> None:
        """Let the application know how long it takes to wake this worker."""
        self._words[_WAKE_NS] = wake_ns

    def tell(self, join_rows: int, service_ns: int, request_ns: int, row_ns: int) -> None:
        """Let the application know what pays."""
        self._words[_REQUEST_NS] = request_ns
        self._words[_JOIN_ROWS] = join_rows
        self._words[_SERVICE_NS] = service_ns
        self._words[_ROW_NS] = row_ns
