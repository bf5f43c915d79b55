"""Runs what a worker has taken, alone or joined, and writes each answer into the block given for it.

    group ──► one request: whole, or in slices ──┬──► encode ──► write ──► shown
          └─► several: joined along the rows ────┘

A group that is refused is halved until only the culprits fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic_ns

import numpy as np

from modelserve import wire
from modelserve.errors import ModelRunError, ModelServeError, OutOfMemoryError, PredictionError, WireError
from modelserve.runtime.batcher import Curve, Slicing, Waiting
from modelserve.runtime.channel import FAILED, OK, TOO_LARGE, Receiver, Submission, body_offset
from modelserve.session import Runner
from modelserve.tensors import Array, Tensors

_ERROR_BYTES = 2000
# Answers of a joined run that are shown together: enough to be worth a look, and few enough to overlap.
_SHOWN_AT_ONCE = 8
# A request of fewer slices is run whole.
_WORTH_SLICING = 4


class Execution:
    """Groups of requests in, answers in shared memory out.

    Args:
        view: The memory that the application and its workers share.
    """

    def __init__(self, runner: Runner, view: memoryview, receiver: Receiver, curve: Curve) -> None:
        self._runner = runner
        self._view = view
        self._receiver = receiver
        self._curve = curve
        self._slicing = Slicing()
        self._held: dict[int, wire.Message] = {}
        #: Whether requests may run joined, and large ones in parts.
        self.may_join = runner.rows_independent and runner.signature.is_batched

    def answer(self, group: Sequence[Waiting]) -> None:
        """Answer each; a group that the model refuses, or has no memory for, is halved until only the culprits fail."""
        try:
            if len(group) == 1:
                self._answer_one(group[0])
            else:
                self._answer_joined(group)
        except (PredictionError, OutOfMemoryError, WireError) as error:
            if len(group) == 1:
                self.fail(group[0].submission, error)
                return
            half = len(group) // 2
            self.answer(group[:half])
            self.answer(group[half:])
        except Exception as error:  # noqa: BLE001  # the one place where a worker answers: whatever went wrong becomes a message
            for one in group:
                self.fail(one.submission, as_ours(error))

    def answer_again(self, submission: Submission) -> None:
        """An answer that was too large for its block; by now there is a larger one."""
        self._write(submission, self._held.pop(submission.ticket))

    def fail(self, submission: Submission, error: ModelServeError) -> None:
        """Answer with an error."""
        # Every block has room for this much, however its characters are escaped.
        content = wire.encode_error(type(error)(str(error)[:_ERROR_BYTES]))
        at = submission.reply_offset
        self._view[at : at + len(content)] = content
        self._receiver.complete((submission.ticket, FAILED, len(content), 0))

    def is_on_the_curve(self, rows: int) -> bool:
        """Whether a run of so many rows says what a run of that size costs: it was not cut into slices."""
        return self.may_join and rows < _WORTH_SLICING * self._curve.best_rows

    def _answer_one(self, one: Waiting) -> None:
        tensors = self._tensors(one)
        slice_rows = self._slice_rows(one)
        start_ns = monotonic_ns()
        if slice_rows and self._slicing.pays(one.rows, self._curve.best_row_ns):
            answer = self._run_in_slices(tensors, one, slice_rows)
            self._slicing.note(one.rows, monotonic_ns() - start_ns, sliced=True)
        else:
            answer = self._runner.run(tensors, one.layout.outputs)
            if slice_rows:
                self._slicing.note(one.rows, monotonic_ns() - start_ns, sliced=False)
        self._write(one.submission, wire.encode_reply(answer))

    def _slice_rows(self, one: Waiting) -> int:
        """Rows of a slice, where this request is so large that slices may be cheaper than the whole; else 0."""
        if not self.may_join or one.key is None:
            return 0
        best_rows = self._curve.best_rows
        return best_rows if one.rows >= _WORTH_SLICING * best_rows else 0

    def _run_in_slices(self, tensors: Tensors, one: Waiting, slice_rows: int) -> Tensors:
        """As one run, in slices whose intermediate values stay in the processor's caches."""
        answer: dict[str, Array] = {}
        for start in range(0, one.rows, slice_rows):
            end = min(start + slice_rows, one.rows)
            part = self._runner.run({name: array[start:end] for name, array in tensors.items()}, one.layout.outputs)
            _check_rows(part, end - start)
            for name, array in part.items():
                if start == 0:
                    answer[name] = np.empty((one.rows, *array.shape[1:]), array.dtype)
                answer[name][start:end] = array
        return answer

    def _answer_joined(self, group: Sequence[Waiting]) -> None:
        parts = [self._tensors(one) for one in group]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        answer = self._runner.run(joined, group[0].layout.outputs)
        _check_rows(answer, sum(one.rows for one in group))
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


def as_ours(error: BaseException) -> ModelServeError:
    """Whatever went wrong in a worker, as an error that travels."""
    if isinstance(error, ModelServeError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"A worker has no memory for this: {error}")
    return ModelRunError(f"A worker failed: {type(error).__name__}: {error}")


def _check_rows(answer: Tensors, rows: int) -> None:
    if any(not array.ndim or array.shape[0] != rows for array in answer.values()):
        raise ModelRunError(f"The model gave no row for each of {rows} rows.")
