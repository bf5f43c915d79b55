"""What a caller may give arrives as it was, whole or in parts."""

import asyncio

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelserve import wire
from modelserve.backend import Limits, Reply
from modelserve.deployment.answer import acollect, answer, ask, collect
from modelserve.errors import InputError
from modelserve.tensors import Signature
from modelserve.testing import strategies


class Echo:
    """An endpoint that answers each request with its own inputs, as outputs of the same names."""

    name = "echo"
    rows_independent = True

    def __init__(self, signature: Signature, limits: Limits) -> None:
        self.signature, self.limits, self.sent = signature, limits, []

    def submit(self, request: object) -> "Done":
        self.sent.append(request)
        joined = request.message.join()
        size = len(request.message.header)
        layout = wire.request_layout(joined[:size])
        message = wire.encode_reply(wire.decode(layout, joined[size:]))
        return Done(Reply(message.header, memoryview(b"".join(message.buffers))))


class Done:
    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def result(self) -> Reply:
        return self.reply

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.reply


def longest_row(tensors: dict, names: list) -> int:
    rows = len(next(iter(tensors.values())))
    alone = ({name: array[row : row + 1] for name, array in tensors.items()} for row in range(rows))
    return max(wire.encode_request(one, names).size_bytes for one in alone)


@given(st.data())
def test_a_signature_takes_what_the_strategies_draw_for_it(data: st.DataObject) -> None:
    signature = data.draw(strategies.signatures())
    tensors = data.draw(strategies.tensors(signature, rows=3))
    checked = signature.check(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(checked.tensors[name], array)


@settings(deadline=None)
@given(st.data())
def test_a_request_split_for_a_limit_keeps_to_it_and_is_joined_in_order(data: st.DataObject) -> None:
    inputs = data.draw(strategies.signatures(batched=True)).inputs
    signature = Signature(inputs, inputs)
    tensors = data.draw(strategies.tensors(signature, rows=data.draw(st.integers(1, 40))))
    names = [spec.name for spec in inputs]
    longest, whole = longest_row(tensors, names), wire.encode_request(tensors, names).size_bytes
    limits = Limits(
        # From one byte less than the longest row needs, up to the whole request.
        request_bytes=data.draw(st.none() | st.integers(longest - 1, max(longest, whole))),
        parallel=data.draw(st.integers(1, 3)),
        split_rows=data.draw(st.none() | st.integers(1, 50)),
    )
    endpoint = Echo(signature, limits)
    try:
        question = ask(endpoint, tensors, names, None)
    except InputError:
        assert limits.request_bytes is not None
        assert longest > limits.request_bytes
        return
    for replies in (collect(endpoint, question), asyncio.run(acollect(endpoint, question))):
        answers = answer(question, replies)
        for name in names:
            np.testing.assert_array_equal(answers[name], tensors[name])
    if limits.request_bytes is not None:
        assert max(request.message.size_bytes for request in endpoint.sent) <= limits.request_bytes
    assert sum(request.rows for request in question.requests) == len(next(iter(tensors.values())))


def test_the_strategies_reach_every_dtype() -> None:
    from hypothesis import find

    for dtype in ("string", "float16", "bool", "uint64"):
        assert find(strategies.specs(), lambda spec, dtype=dtype: spec.dtype == dtype).dtype == dtype
