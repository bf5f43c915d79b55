"""One call of predict, between arrays and bytes.

inputs ──check──► tensors ──split where the place asks for it──► requests ──► replies ──join──► arrays
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from modelserve.backend import Endpoint, Limits, Reply, ReplyFuture, Request
from modelserve.errors import DeadlineError, InputError, SignatureError, WireError
from modelserve.tensors import Array, Signature, Tensors
from modelserve.wire import Message, decode, encode_request, reply_layout

#: How long an answer may take where neither the caller nor the place says so.
DEFAULT_TIMEOUT_S = 60.0
_LONGEST_TIMEOUT_S = 7 * 86400.0


class Question(NamedTuple):
    """What one call asks. `outputs` is empty where the primary output is meant."""

    requests: Sequence[Request]
    outputs: tuple[str, ...]
    single: bool
    parallel: int
    signature: Signature


def ask(endpoint: Endpoint, inputs: Any, outputs: Sequence[str] | None, timeout_s: float | None) -> Question:
    """Check and encode one call.

    Raises:
        SignatureError: the inputs or the outputs' names do not fit the model.
        InputError: the request is larger than the place takes and cannot be split.
    """
    signature, limits = endpoint.signature, endpoint.limits
    names = () if outputs is None else _known(signature, outputs)
    tensors, rows, single = signature.check(inputs)
    seconds = _timeout_s(timeout_s, limits)
    message = encode_request(tensors, names)
    if _fits(message, rows, limits):
        return Question((Request(message, rows, seconds),), names, single, 1, signature)
    parts = _split(endpoint, tensors, rows, message, names)
    requests = [Request(part, part_rows, seconds) for part, part_rows in parts]
    return Question(requests, names, single, max(1, limits.parallel), signature)


def collect(endpoint: Endpoint, question: Question) -> list[Reply]:
    """Send the requests, as many at once as the place has use for, and wait for the replies, in order."""
    if len(question.requests) == 1:
        return [endpoint.submit(question.requests[0]).result()]
    deadline = time.monotonic() + question.requests[0].timeout_s
    replies: list[Reply] = []
    waiting: deque[ReplyFuture] = deque()
    for request in question.requests:
        if len(waiting) == question.parallel:
            replies.append(waiting.popleft().result())
        waiting.append(endpoint.submit(_until(request, deadline)))
    return replies + [future.result() for future in waiting]


async def acollect(endpoint: Endpoint, question: Question) -> list[Reply]:
    """As `collect`, without holding up the event loop."""
    if len(question.requests) == 1:
        return [await endpoint.submit(question.requests[0])]
    deadline = time.monotonic() + question.requests[0].timeout_s
    replies: list[Reply] = []
    waiting: deque[ReplyFuture] = deque()
    for request in question.requests:
        if len(waiting) == question.parallel:
            replies.append(await waiting.popleft())
        waiting.append(endpoint.submit(_until(request, deadline)))
    return replies + [await future for future in waiting]


def answer(question: Question, replies: Sequence[Reply]) -> Any:
    """The primary output's array, or a dict of those that were asked for; one row where one row was given.

    Raises:
        WireError: a reply holds something else than was asked for.
    """
    arrays = _joined([decode(reply_layout(reply.header), reply.body) for reply in replies])
    if not question.outputs:
        # A server of another make may answer with all outputs.
        name = next(iter(arrays)) if len(arrays) == 1 else question.signature.primary
        return _picked(question, arrays, name)
    return {name: _picked(question, arrays, name) for name in question.outputs}


def _known(signature: Signature, outputs: Sequence[str]) -> tuple[str, ...]:
    if isinstance(outputs, str) or not outputs:
        raise SignatureError(f"outputs= takes a list of at least one name, got {outputs!r}. Write outputs=[...].")
    return tuple(signature.output(name).name for name in outputs)


def _timeout_s(asked: float | None, limits: Limits) -> float:
    if asked is None:
        return limits.timeout_s or DEFAULT_TIMEOUT_S
    if not 0 < asked <= _LONGEST_TIMEOUT_S:
        raise InputError(f"timeout_s must be above 0 and at most {_LONGEST_TIMEOUT_S:.0f} seconds, got {asked!r}.")
    return min(asked, limits.timeout_s or asked)


def _fits(message: Message, rows: int, limits: Limits) -> bool:
    return (limits.request_bytes is None or message.size_bytes <= limits.request_bytes) and (
        limits.split_rows is None or rows <= limits.split_rows
    )


def _split(
    endpoint: Endpoint, tensors: Tensors, rows: int, message: Message, names: tuple[str, ...]
) -> Iterator[tuple[Message, int]]:
    limits = endpoint.limits
    is_over = limits.request_bytes is not None and message.size_bytes > limits.request_bytes
    if not (endpoint.rows_independent and endpoint.signature.is_batched):
        if is_over:
            why = "its answers depend on all rows together" if rows > 1 else "it has no rows"
            raise _too_large(endpoint, message, f"this model's requests cannot be split: {why}")
        yield message, rows
    elif is_over:
        yield from _within_bytes(endpoint, tensors, rows, message, names)
    else:
        # Small enough, but several replicas answer parts of it sooner than one the whole.
        for part, part_rows in _row_parts(tensors, rows, max(1, limits.parallel)):
            yield encode_request(part, names), part_rows


def _within_bytes(
    endpoint: Endpoint, tensors: Tensors, rows: int, message: Message, names: tuple[str, ...]
) -> Iterator[tuple[Message, int]]:
    limit = endpoint.limits.request_bytes
    if limit is None or message.size_bytes <= limit:
        yield message, rows
        return
    if rows == 1:
        raise _too_large(endpoint, message, "a single row cannot be split")
    body_bytes = message.size_bytes - len(message.header)
    count = -(-body_bytes // max(1, limit - len(message.header)))
    for part, part_rows in _row_parts(tensors, rows, max(2, count)):
        yield from _within_bytes(endpoint, part, part_rows, encode_request(part, names), names)


def _row_parts(tensors: Tensors, rows: int, count: int) -> Iterator[tuple[dict[str, Array], int]]:
    edges = [rows * index // min(count, rows) for index in range(min(count, rows) + 1)]
    for start, end in itertools.pairwise(edges):
        yield {name: array[start:end] for name, array in tensors.items()}, end - start


def _too_large(endpoint: Endpoint, message: Message, why: str) -> InputError:
    return InputError(
        f"This request takes {message.size_bytes} bytes and {endpoint.name!r} takes at most "
        f"{endpoint.limits.request_bytes}; {why}. Send less at once."
    )


def _until(request: Request, deadline: float) -> Request:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise DeadlineError(f"No answer to all parts of the request within {request.timeout_s:g} s. Raise timeout_s=.")
    return request._replace(timeout_s=left_s)


def _joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    if len(parts) == 1:
        return parts[0]
    if any(part.keys() != parts[0].keys() for part in parts):
        raise WireError("The parts of a split request were answered with different outputs.")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _picked(question: Question, arrays: Tensors, name: str) -> Any:
    array = arrays.get(name)
    if array is None:
        raise WireError(f"The reply holds {', '.join(map(repr, arrays)) or 'nothing'}, asked was {name!r}.")
    return array[0] if question.single and question.signature.output(name).is_batched else array
