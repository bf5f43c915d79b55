"""One worker process: takes requests from its channel, runs the model, writes the answers back.

    control socket ── start ──► load, warm up ── ready ──► serve until the control socket closes
                                                             │
                             take ─► groups ─► run ─► write into the blocks given ─► announce

Started as `python -m modelserve.runtime.worker DESCRIPTOR`, or forked by the zygote with the model loaded already.
It ends when its control socket closes: when the pool lets it go, or when the application is gone.
"""

from __future__ import annotations

import math
import mmap
import os
import select
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelserve import wire
from modelserve.bundle import Bundle, LiveCallable
from modelserve.bundle.manifest import signature_from_json
from modelserve.errors import BundleError, ModelRunError, ModelServeError, OutOfMemoryError, PredictionError, WireError
from modelserve.runtime import messages
from modelserve.runtime.batcher import Curve, Patience, Slicing, Waiting, describe, groups, usual
from modelserve.runtime.bell import Bell
from modelserve.runtime.channel import EXPIRED, FAILED, FETCH, OK, TOO_LARGE, Receiver, SpinTurn, Submission
from modelserve.runtime.mapping import give_back_freed_memory
from modelserve.session import Runner, open_session
from modelserve.tensors import Array, Tensors

_WARM_UP_S = 0.03
_SPIN_NS = 60_000
_LONGEST_SPIN_NS = 200_000
_SLEEP_MS = 1000
_ERROR_BYTES = 2000
# Answers of a joined run that are shown together: enough to be worth a look, and few enough to overlap.
_SHOWN_AT_ONCE = 8
# A request of fewer slices is run whole.
_WORTH_SLICING = 4


class Worker:
    """Answers what comes over one channel with one model."""

    def __init__(
        self,
        runner: Runner,
        view: memoryview,
        receiver: Receiver,
        curve: Curve,
        turn: SpinTurn,
        *,
        may_spin: bool,
        latency_budget_s: float = 0.0,
    ) -> None:
        self._turn = turn
        self._runner = runner
        self._view = view
        self._receiver = receiver
        self._curve = curve
        self._may_join = runner.rows_independent and runner.signature.is_batched
        self._spin_ns = _SPIN_NS if may_spin else 0
        self._may_spin = may_spin
        self._slicing = Slicing()
        self._patience = Patience(latency_budget_s) if latency_budget_s and self._may_join else None
        self._rested_since_ns = 0
        self._wake_ns = 0
        self._service_ns = 0
        self._request_ns = 0
        self._held: dict[int, wire.Message] = {}

    def serve(self, control: socket.socket) -> None:
        """Answer until the control socket closes."""
        receiver = self._receiver
        poller = select.poll()
        poller.register(receiver.bell.wait_descriptor, select.POLLIN)
        poller.register(control.fileno(), select.POLLIN)
        while True:
            if not receiver.waiting() and not self._wait(poller, control.fileno()):
                return
            self._answer(receiver.take())

    def _wait(self, poller: select.poll, control: int) -> bool:
        """Until something waits; False when the pool has let go."""
        if self._spin():
            return True
        receiver = self._receiver
        slept_ns = time.monotonic_ns()
        while receiver.about_to_sleep():
            events = poller.poll(_SLEEP_MS)
            receiver.awake()
            if receiver.waiting():
                self._note_wake(slept_ns, receiver.rang_ns, time.monotonic_ns())
                break
            if any(descriptor == control for descriptor, _ in events):
                return False
        return True

    def _note_wake(self, slept_ns: int, rang_ns: int, now_ns: int) -> None:
        """Learn what a wake-up costs here, and whether a spin would have been shorter than it."""
        if rang_ns < slept_ns:
            return  # it found the request by itself
        self._wake_ns = min(_usual(self._wake_ns, now_ns - rang_ns), _LONGEST_SPIN_NS)
        self._receiver.tell_wake(self._wake_ns)
        worth_ns = self._worth_spinning_ns()
        if self._may_spin and rang_ns - slept_ns < worth_ns:
            self._spin_ns = worth_ns

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

    def _worth_spinning_ns(self) -> int:
        """As long as a wake-up takes; a caller's next request comes the later, the larger its inputs are."""
        return min(max(_SPIN_NS, self._wake_ns, self._service_ns // 4), _LONGEST_SPIN_NS)

    def _answer(self, submissions: Sequence[Submission]) -> None:
        waiting = self._admitted(submissions)
        if self._patience is not None and waiting:
            waiting = self._joined_by_more(waiting, self._patience)
        for group in groups(waiting, self._curve.join_rows() if self._may_join else 1):
            self._run(group)

    def _admitted(self, submissions: Sequence[Submission]) -> list[Waiting]:
        """Those that are to run; the others are answered at once."""
        waiting = []
        now_ns = time.monotonic_ns()
        for submission in submissions:
            if submission.flags & FETCH:
                self._write(submission, self._held.pop(submission.ticket))
            elif submission.deadline_ns < now_ns:
                self._receiver.complete((submission.ticket, EXPIRED, 0, 0))
            else:
                waiting += self._described(submission)
        if len(waiting) < len(submissions):
            self._receiver.announce(0)
        return waiting

    def _joined_by_more(self, waiting: list[Waiting], patience: Patience) -> list[Waiting]:
        """These requests, and those that come while it is worth waiting for them."""
        now_ns = time.monotonic_ns()
        end_ns = patience.until_ns(now_ns, self._rested_since_ns)
        wanted_rows = patience.rows(self._curve.join_rows())
        while sum(one.rows for one in waiting) < wanted_rows and now_ns < end_ns:
            if self._receiver.about_to_sleep():
                select.select([self._receiver.bell.wait_descriptor], [], [], (end_ns - now_ns) / 1e9)
                self._receiver.awake()
            waiting += self._admitted(self._receiver.take())
            now_ns = time.monotonic_ns()
        patience.note(sum(one.rows for one in waiting))
        return waiting

    def _described(self, submission: Submission) -> list[Waiting]:
        start = submission.offset
        header = bytes(self._view[start : start + submission.header_bytes])
        try:
            return [describe(submission, header)]
        except ModelServeError as error:
            self._fail(submission, error)
            return []

    def _run(self, group: list[Waiting]) -> None:
        start_ns = time.monotonic_ns()
        self._receiver.begin([one.submission.ticket for one in group], start_ns)
        self._answer_group(group)
        self._rested_since_ns = time.monotonic_ns()
        rows = sum([one.rows for one in group])
        # Whoever waits is answered first; what was learnt is written down afterwards.
        self._receiver.announce(rows)
        self._learn(len(group), rows, self._rested_since_ns - start_ns)

    def _learn(self, requests: int, rows: int, elapsed_ns: int) -> None:
        self._service_ns = _usual(self._service_ns, elapsed_ns)
        self._request_ns = _usual(self._request_ns, elapsed_ns // requests, rise=1.01)
        curve = self._curve
        if self._may_join and rows < _WORTH_SLICING * curve.best_rows:
            curve.note(rows, elapsed_ns / 1e9)
        join_rows = curve.join_rows() if self._may_join else 1
        self._receiver.tell(join_rows, self._service_ns, self._request_ns, curve.row_ns)

    def _answer_group(self, group: list[Waiting]) -> None:
        """Answer each; a group that the model refuses, or has no memory for, is halved until only the culprits fail."""
        try:
            if len(group) == 1:
                self._answer_one(group[0])
            else:
                self._answer_joined(group)
        except (PredictionError, OutOfMemoryError, WireError) as error:
            if len(group) == 1:
                self._fail(group[0].submission, error)
                return
            half = len(group) // 2
            self._answer_group(group[:half])
            self._answer_group(group[half:])
        except Exception as error:  # noqa: BLE001  # the one place where a worker answers: whatever went wrong becomes a message
            for one in group:
                self._fail(one.submission, _as_ours(error))

    def _answer_one(self, one: Waiting) -> None:
        tensors = self._tensors(one)
        slice_rows = self._slice_rows(one)
        start_ns = time.monotonic_ns()
        if slice_rows and self._slicing.pays(one.rows, self._curve.best_row_ns):
            answer = self._run_in_slices(tensors, one, slice_rows)
            self._slicing.note(one.rows, time.monotonic_ns() - start_ns, sliced=True)
        else:
            answer = self._runner.run(tensors, one.layout.outputs)
            if slice_rows:
                self._slicing.note(one.rows, time.monotonic_ns() - start_ns, sliced=False)
        self._write(one.submission, wire.encode_reply(answer))

    def _slice_rows(self, one: Waiting) -> int:
        """Rows of a slice, where this request is so large that slices may be cheaper than the whole; else 0."""
        if not self._may_join or one.key is None:
            return 0
        best_rows = self._curve.best_rows
        return best_rows if one.rows >= _WORTH_SLICING * best_rows else 0

    def _run_in_slices(self, tensors: Tensors, one: Waiting, slice_rows: int) -> Tensors:
        """As one run, in slices whose intermediate values stay in the processor's caches."""
        answer: dict[str, Array] = {}
        for start in range(0, one.rows, slice_rows):
            end = min(start + slice_rows, one.rows)
            part = self._runner.run({name: array[start:end] for name, array in tensors.items()}, one.layout.outputs)
            for name, array in part.items():
                if not array.ndim or array.shape[0] != end - start:
                    raise ModelRunError(f"The model gave no row for each of {end - start} rows.")
                if start == 0:
                    answer[name] = np.empty((one.rows, *array.shape[1:]), array.dtype)
                answer[name][start:end] = array
        return answer

    def _answer_joined(self, group: list[Waiting]) -> None:
        parts = [self._tensors(one) for one in group]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        answer = self._runner.run(joined, group[0].layout.outputs)
        rows = sum(one.rows for one in group)
        if any(not array.ndim or array.shape[0] != rows for array in answer.values()):
            raise ModelRunError(f"The model gave no row for each of {rows} rows.")
        ends = np.cumsum([one.rows for one in group]).tolist()
        parts_of = zip([0, *ends], ends, strict=False)
        # All are encoded before the first is written: none may be answered and then refused.
        replies = [wire.encode_reply({name: array[a:b] for name, array in answer.items()}) for a, b in parts_of]
        for count, (one, reply) in enumerate(zip(group, replies, strict=True), 1):
            self._write(one.submission, reply)
            if count % _SHOWN_AT_ONCE == 0:
                self._receiver.show()  # the application goes on with these while the others are written

    def _tensors(self, one: Waiting) -> Tensors:
        start = body_offset(one.submission.offset, one.submission.header_bytes)
        return wire.decode(one.layout, self._view[start : start + one.submission.body_bytes])

    def _write(self, submission: Submission, message: wire.Message) -> None:
        header, buffers = message
        body_bytes = sum(buffer.nbytes for buffer in buffers)
        at = submission.reply_offset
        body_at = body_offset(at, len(header))
        needed = body_at - at + body_bytes
        if needed > submission.reply_capacity:
            # A slice of a joined answer would keep the whole; memory of its own lets the rest go.
            self._held[submission.ticket] = wire.Message(header, tuple(memoryview(bytes(part)) for part in buffers))
            self._receiver.complete((submission.ticket, TOO_LARGE, 0, needed))
            return
        view = self._view
        view[at : at + len(header)] = header
        for buffer in buffers:
            view[body_at : body_at + buffer.nbytes] = buffer
            body_at += buffer.nbytes
        self._receiver.complete((submission.ticket, OK, len(header), body_bytes))

    def _fail(self, submission: Submission, error: ModelServeError) -> None:
        # Every block has room for this much, however its characters are escaped.
        content = wire.encode_error(type(error)(str(error)[:_ERROR_BYTES]))
        at = submission.reply_offset
        self._view[at : at + len(content)] = content
        self._receiver.complete((submission.ticket, FAILED, len(content), 0))


def _usual(before_ns: int, elapsed_ns: int, *, rise: float = 1.125) -> int:
    return math.ceil(usual(before_ns, elapsed_ns, rise=rise)) if before_ns else elapsed_ns


def body_offset(offset: int, header_bytes: int) -> int:
    """Where the body lies behind a header: at the next multiple of 64, so that tensors are aligned."""
    return (offset + header_bytes + 63) & ~63


def start(control: socket.socket, runner: Runner | None = None) -> None:
    """Be a worker: wait for the start message, load (unless `runner` is there already), warm up, serve."""
    try:
        order, descriptors = messages.receive(control)
    except EOFError:
        return
    arena, *bells = descriptors
    view = memoryview(mmap.mmap(arena, order["arena_bytes"]))
    own, answers = Bell(bells[0], bells[1]), Bell(bells[2], bells[3])
    receiver = Receiver(view, order["slot"], own, answers)
    if order["cores"]:
        os.sched_setaffinity(0, order["cores"])
    try:
        if runner is None:
            runner = load(order["load"], descriptors[5:])
        curve = warm_up(runner, order)
        give_back_freed_memory()
    except Exception as error:  # noqa: BLE001  # whatever stops a model from loading is told to the pool
        ours = _as_ours(error)
        messages.send(control, {"failed": wire.encode_error(ours).decode()})
        return
    first_ns = int((curve.seconds or [0])[0] * 1e9)
    receiver.tell(curve.join_rows(), first_ns, first_ns, curve.row_ns)
    messages.send(control, {"ready": {"pid": os.getpid(), "curve": curve.seconds}})
    turn = SpinTurn(view, order["slot"])
    Worker(
        runner,
        view,
        receiver,
        curve,
        turn,
        may_spin=order["may_spin"],
        latency_budget_s=order["latency_budget_s"],
    ).serve(control)


def load(order: Mapping[str, Any], descriptors: Sequence[int]) -> Runner:
    """The model that `order` names: a bundle's folder, or a live callable in the file that was passed."""
    for entry in order["sys_path"]:
        if entry not in sys.path:
            sys.path.append(entry)
    if "bundle" in order:
        return _load_bundle(order)
    with os.fdopen(os.dup(descriptors[0]), "rb") as file:
        file.seek(0)
        payload = file.read(order["live_bytes"])
    live = LiveCallable(payload, signature_from_json(order["signature"]), "", order["rows_independent"])
    return open_session(live)


def _load_bundle(order: Mapping[str, Any]) -> Runner:
    # The pool opened and verified it; here only sizes are looked at again.
    bundle = Bundle.open(order["bundle"], verify=False)
    threads, mapped = order["threads"], order.get("mapped")
    if mapped is not None:
        try:
            return open_session(bundle, threads=threads, mapped=Path(mapped))
        except BundleError as error:  # the bundle itself is whole: what was written for this host is not
            sys.stderr.write(f"This worker keeps a copy of the weights (modelserve cache clear mends that): {error}\n")
    return open_session(bundle, threads=threads)


def warm_up(runner: Runner, order: Mapping[str, Any]) -> Curve:
    """Run the example, so that the first request finds everything touched; learn what joining pays."""
    known = order["curve"]
    if "bundle" not in order["load"]:
        return Curve(known)
    example = Bundle.open(order["load"]["bundle"], verify=False).example()
    runner.run(example)
    if not (runner.rows_independent and runner.signature.is_batched):
        return Curve()
    if known:
        return Curve(known)
    curve = Curve()
    curve.measure(lambda rows: _run_rows(runner, example, rows), _WARM_UP_S)
    return curve


def _run_rows(runner: Runner, example: Tensors, rows: int) -> None:
    runner.run({name: np.resize(array, (rows, *array.shape[1:])) for name, array in example.items()})


def _as_ours(error: BaseException) -> ModelServeError:
    if isinstance(error, ModelServeError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"A worker has no memory for this: {error}")
    return ModelRunError(f"A worker failed: {type(error).__name__}: {error}")


def main() -> None:
    """Entry point of `python -m modelserve.runtime.worker DESCRIPTOR`."""
    with socket.socket(fileno=int(sys.argv[1])) as control:
        start(control)


if __name__ == "__main__":
    main()
