"""Requests of exactly the rows of a batch, and the rows that fail alone.

    group ──submit──► reply ──► arrays
                        │ the model refused it, or its workers died of it
                        └──► halves ──► halves ──► only the culprits have no answer

Which rows share a request decides the last bits of their answers. A request says that it is to be run alone, so that
these are always the same rows, whoever else asks at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Protocol

from modelserve.backend import Reply, Request
from modelserve.dataset.feed import Group
from modelserve.dataset.predictor import Predictor
from modelserve.errors import (
    DeadlineError,
    InputError,
    ModelRunError,
    ModelServeError,
    PoisonedRequestError,
    PredictionError,
    WireError,
)
from modelserve.tensors import Array
from modelserve.wire import decode, encode_request, reply_layout

_DEFAULT_TIMEOUT_S = 60.0
# How often what can succeed later is tried again, and for how long it is waited for.
_TRIES = 8
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0


class Failure(NamedTuple):
    """A row without an answer, by its number within the batch."""

    row: int
    code: str
    reason: str


class Answered(NamedTuple):
    """What a group came to: the rows that have answers, their arrays by output, and the rows that have none."""

    positions: Sequence[int]
    arrays: dict[str, Array]


class Waiting(Protocol):
    """An answer to come, as far as it is waited for here."""

    def result(self) -> Reply: ...


class Asked(NamedTuple):
    """A group on its way."""

    group: Group
    future: Waiting


class Asker:
    """Sends groups to a predictor, and waits for their answers.

    Args:
        outputs: Their names; none means the primary one.
    """

    def __init__(self, predictor: Predictor, outputs: Sequence[str], timeout_s: float | None) -> None:
        self._predictor = predictor
        self._outputs = tuple(outputs)
        self._primary = predictor.signature.primary
        self._timeout_s = timeout_s or predictor.limits.timeout_s or _DEFAULT_TIMEOUT_S

    def ask(self, group: Group) -> Asked:
        """Send a group on its way, when there is room for it.

        Raises:
            BackendError: nobody is there to answer.
        """
        message = encode_request(group.tensors, self._outputs, is_alone=True)
        request = Request(message, group.rows, self._timeout_s)
        for attempt in range(_TRIES):
            try:
                return Asked(group, self._predictor.submit(request))
            except ModelServeError as error:
                if isinstance(error, PoisonedRequestError):
                    return Asked(group, _Refused(error))
                _pause(error, attempt)
        raise AssertionError("the last try raises")

    def answers(self, asked: Asked) -> tuple[list[Answered], list[Failure]]:
        """Wait for a group's answers; where it was refused, for those of its halves.

        Raises:
            BackendError, DeadlineError: the place could not answer, also not later.
        """
        group = asked.group
        try:
            return [Answered(group.positions.tolist(), self._arrays(asked))], []
        except (ModelRunError, PoisonedRequestError, InputError) as error:
            if group.rows == 1 or not self._predictor.rows_independent:
                return [], [Failure(row, error.code, str(error)) for row in group.positions.tolist()]
        half = group.rows // 2
        parts = [self.ask(group.part(0, half)), self.ask(group.part(half, group.rows))]
        found, failed = [], []
        for part in parts:
            answered, failures = self.answers(part)
            found += answered
            failed += failures
        return found, failed

    def _arrays(self, asked: Asked) -> dict[str, Array]:
        for attempt in range(_TRIES):
            try:
                reply = asked.future.result()
                break
            except (ModelRunError, PoisonedRequestError, InputError):
                raise
            except ModelServeError as error:
                if attempt + 1 == _TRIES:
                    raise
                _pause(error, attempt)
                asked = self.ask(asked.group)
        arrays = decode(reply_layout(reply.header), reply.body)
        for name, array in arrays.items():
            if not array.ndim or len(array) != asked.group.rows:
                raise WireError(f"Output {name!r} has shape {array.shape} for {asked.group.rows} rows.")
        return self._picked(arrays)

    def _picked(self, arrays: dict[str, Array]) -> dict[str, Array]:
        names = self._outputs or (self._primary,)
        missing = [name for name in names if name not in arrays]
        if missing:
            raise WireError(f"The reply holds {', '.join(map(repr, arrays))}, asked was {missing[0]!r}.")
        return {name: arrays[name] for name in names}


class _Refused:
    """An answer that is known to be none."""

    def __init__(self, error: PredictionError) -> None:
        self._error = error

    def result(self) -> NoReturn:
        raise self._error


def _pause(error: ModelServeError, attempt: int) -> None:
    """Wait before another try, or raise what no try will mend."""
    if not error.retryable or attempt + 1 == _TRIES or (isinstance(error, DeadlineError) and attempt):
        raise error
    time.sleep(min(getattr(error, "retry_after_s", _FIRST_PAUSE_S) * 2**attempt, _LONGEST_PAUSE_S))
