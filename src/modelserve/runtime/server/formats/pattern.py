"""JSON requests that differ from an earlier one in nothing but their numbers.

    {"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":  [5.1,3.5,1.4,0.2]  }]}
    └───────────────────────── before ────────────────────────────┘  └─ numbers ────┘  └ after

A client that asks the same thing over and over sends the same text around the numbers. What was found out about that
text once holds again, so only the numbers are read. Whatever is the least bit different is read in full, which is also
where every mistake gets its message.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from modelserve import wire
from modelserve.runtime.server.formats.question import Described, Question
from modelserve.runtime.server.formats.values import depth_of, list_decoder
from modelserve.runtime.server.http.messages import Response
from modelserve.tensors import Array

_LONGEST_TEXT_BYTES = 2048
_LONGEST_BODY_BYTES = 64 << 10
# Of one model; a client of a kind has one.
_MOST = 8
_MODELS = 256


class Answer(Protocol):
    """Makes the response of the workers' reply."""

    def __call__(self, reply: wire.Reply, model: Described) -> Response: ...


class _Pattern(NamedTuple):
    """What stands around the numbers, and what is known of a request that looks like this.

    Attributes:
        decode: Reads the numbers; raises where they are nested otherwise, or no numbers.
        header: The workers'.
        answer: Makes the response; it is told the model anew, since one may be served under several names.
    """

    before: bytes
    after: bytes
    decode: Callable[[bytes], Any]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    header: bytes
    rows: int
    timeout_s: float | None
    answer: Answer


class Patterns:
    """The requests that were read before, by model; the oldest are forgotten."""

    def __init__(self) -> None:
        self._known: dict[str, list[_Pattern]] = {}

    def question(self, body: bytes | memoryview, model: Described) -> Question[Response] | None:
        """The question, where this body is of a known pattern."""
        known = self._known.get(model.digest)
        if known is None or type(body) is not bytes:
            return None
        for before, after, decode, dtype, shape, header, rows, timeout_s, answer in known:
            if body.startswith(before) and body.endswith(after):
                array = _array(body[len(before) : len(body) - len(after)], decode, dtype, shape)
                if array is not None:
                    message = wire.Message(header, (array.data.cast("B"),))
                    return Question(message, rows, partial(answer, model=model), timeout_s)
        return None

    def note(
        self, body: bytes | memoryview, numbers: bytes, array: Array, found: Question[Any], digest: str, answer: Answer
    ) -> None:
        """Remember what was read in full: a model's only input as it came, and no id.

        Args:
            numbers: The text of the input's data within the body.
            answer: As `found.answer`, for a model of this digest under any name.
        """
        before, is_there, after = bytes(body).partition(numbers)
        is_short = len(before) + len(after) <= _LONGEST_TEXT_BYTES and len(body) <= _LONGEST_BODY_BYTES
        # Text that stands twice could be another place's, such as a shape that looks like the data.
        if not is_there or not is_short or numbers in after or not array.size:
            return
        if len(self._known) >= _MODELS and digest not in self._known:
            del self._known[next(iter(self._known))]
        decode = list_decoder(array.dtype.kind, depth_of(numbers, "")).decode
        header, rows, timeout_s = found.message.header, found.rows, found.timeout_s
        pattern = _Pattern(before, after, decode, array.dtype, array.shape, header, rows, timeout_s, answer)
        self._known[digest] = [pattern, *self._known.get(digest, [])[: _MOST - 1]]


def _array(
    numbers: bytes, decode: Callable[[bytes], Any], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Array | None:
    """The array of this text; None where it is not exactly as the pattern says."""
    try:
        with np.errstate(over="raise"):
            array = np.array(decode(numbers), dtype)
    except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError, ValueError):
        return None
    if array.ndim == 1 and array.size == math.prod(shape):
        return array.reshape(shape)
    return array if array.shape == shape else None
