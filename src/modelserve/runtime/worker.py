"""One worker process: takes requests from its channel, runs the model, writes the answers back.

    control socket ── start ──► load, warm up ── ready ──► serve until the control socket closes
                                                             │
                             take ─► groups ─► run ─► write into the blocks given ─► announce

Started as `python -m modelserve.runtime.worker DESCRIPTOR`, or forked by the zygote with the model loaded already.
It ends when its control socket closes: when the pool lets it go, or when the application is gone.
"""

from __future__ import annotations

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
from modelserve.errors import BundleError, ModelServeError
from modelserve.runtime import messages
from modelserve.runtime.batcher import Curve, Patience, Waiting, describe, groups, usual_ns
from modelserve.runtime.bell import Bell
from modelserve.runtime.channel import COUNT_SHIFT, EXPIRED, FETCH, Receiver, SpinTurn, Submission
from modelserve.runtime.execution import Execution, as_ours
from modelserve.runtime.rest import Rest
from modelserve.runtime.usage import give_back_freed_memory
from modelserve.session import Runner, open_session
from modelserve.tensors import Tensors

_WARM_UP_S = 0.03


class Worker:
    """Answers what comes over one channel with one model."""

    def __init__(
        self,
        runner: Runner,
        view: memoryview,
        receiver: Receiver,
        curve: Curve,
        *,
        latency_budget_s: float = 0.0,
    ) -> None:
        self._view = view
        self._receiver = receiver
        self._curve = curve
        self._execution = Execution(runner, view, receiver, curve)
        self._may_join = self._execution.may_join
        self._patience = Patience(latency_budget_s) if latency_budget_s and self._may_join else None
        self._rested_since_ns = 0
        self._service_ns = 0
        self._request_ns = 0

    def serve(self, rest: Rest) -> None:
        """Answer until the pool lets go."""
        receiver = self._receiver
        while receiver.waiting() or rest.until_called():
            self._answer(receiver.take())
            rest.service_ns = self._service_ns

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
                self._execution.answer_again(submission)
            elif submission.deadline_ns < now_ns:
                self._receiver.complete((submission.ticket, EXPIRED, 0, 0))
            else:
                waiting += self._described(submission)
        if len(waiting) < len(submissions):
            self._receiver.announce(0)
        return waiting

    def _described(self, submission: Submission) -> list[Waiting]:
        start = submission.offset
        header = bytes(self._view[start : start + submission.header_bytes])
        try:
            return [describe(submission, header)]
        except ModelServeError as error:
            self._execution.fail(submission, error)
            return []

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

    def _run(self, group: list[Waiting]) -> None:
        start_ns = time.monotonic_ns()
        requests = sum([one.submission.flags >> COUNT_SHIFT or 1 for one in group])
        self._receiver.begin([one.submission.ticket for one in group], requests, start_ns)
        self._execution.answer(group)
        self._rested_since_ns = time.monotonic_ns()
        rows = sum([one.rows for one in group])
        # Whoever waits is answered first; what was learnt is written down afterwards.
        self._receiver.announce(rows)
        self._learn(requests, rows, self._rested_since_ns - start_ns)

    def _learn(self, requests: int, rows: int, elapsed_ns: int) -> None:
        self._service_ns = usual_ns(self._service_ns, elapsed_ns)
        self._request_ns = usual_ns(self._request_ns, elapsed_ns // requests, rise=1.01)
        curve = self._curve
        if self._execution.is_on_the_curve(rows):
            curve.note(rows, elapsed_ns / 1e9)
        join_rows = curve.join_rows() if self._may_join else 1
        self._receiver.tell(join_rows, self._service_ns, self._request_ns, curve.row_ns)


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
        ours = as_ours(error)
        messages.send(control, {"failed": wire.encode_error(ours).decode()})
        return
    first_ns = int((curve.seconds or [0])[0] * 1e9)
    receiver.tell(curve.join_rows(), first_ns, first_ns, curve.row_ns)
    messages.send(control, {"ready": {"pid": os.getpid(), "curve": curve.seconds}})
    rest = Rest(receiver, SpinTurn(view, order["slot"]), control.fileno(), may_spin=order["may_spin"])
    Worker(runner, view, receiver, curve, latency_budget_s=order["latency_budget_s"]).serve(rest)


def load(order: Mapping[str, Any], descriptors: Sequence[int]) -> Runner:
    """The model that `order` names: a bundle's folder, or a live callable in the file that was passed."""
    for entry in order["sys_path"]:
        if entry not in sys.path:
            sys.path.append(entry)
    if "bundle" in order:
        return _load_bundle(order)
    payload = _read_whole(descriptors[0], order["live_bytes"])
    live = LiveCallable(payload, signature_from_json(order["signature"]), "", order["rows_independent"])
    return open_session(live)


def _read_whole(descriptor: int, size_bytes: int) -> bytes:
    # Every worker holds the same open file: reading by place leaves the others' place in it alone.
    parts: list[bytes] = []
    at = 0
    while at < size_bytes and (part := os.pread(descriptor, size_bytes - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


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


def main() -> None:
    """Entry point of `python -m modelserve.runtime.worker DESCRIPTOR`."""
    with socket.socket(fileno=int(sys.argv[1])) as control:
        start(control)


if __name__ == "__main__":
    main()
