"""What several requests are as one, and what each gets of the answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserve import wire
from modelserve.errors import WireError
from modelserve.runtime.joining import divided, joinable, joint_header

DTYPES = st.sampled_from(["float32", "float64", "int8", "int64", "uint16", "bool"])
SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)


def array(random: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return random.integers(0, 2, shape).astype(dtype)


@given(st.integers(1, 9), st.integers(1, 4), DTYPES, SHAPES, st.integers(0, 2**32 - 1))
def test_a_joint_header_is_that_of_the_rows_one_behind_the_other(
    count: int, rows: int, dtype: str, shape: tuple[int, ...], seed: int
) -> None:
    random = np.random.default_rng(seed)
    parts = [array(random, dtype, (rows, *shape)) for _ in range(count)]
    messages = [wire.encode_request({"x": part}, ("y",)) for part in parts]
    layout = joinable(messages[0].header)
    assert layout is not None
    assert layout.body_bytes == parts[0].nbytes
    header = joint_header(messages[0].header, count)
    assert header == wire.encode_request({"x": np.concatenate(parts)}, ("y",)).header
    body = b"".join(bytes(message.buffers[0]) for message in messages)
    np.testing.assert_array_equal(wire.decode(wire.request_layout(header), body)["x"], np.concatenate(parts))


@given(
    st.integers(1, 9),
    st.integers(1, 4),
    st.lists(st.tuples(DTYPES, SHAPES), min_size=1, max_size=3),
    st.integers(0, 99),
)
def test_each_gets_its_own_rows_of_every_output(
    count: int, rows: int, outputs: list[tuple[str, tuple[int, ...]]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    whole = {f"y{place}": array(random, dtype, (rows * count, *shape)) for place, (dtype, shape) in enumerate(outputs)}
    message = wire.encode_reply(whole)
    replies = divided(wire.Reply(message.header, memoryview(b"".join(message.buffers))), count)
    assert len(replies) == count
    for place, reply in enumerate(replies):
        mine = {name: values[place * rows : (place + 1) * rows] for name, values in whole.items()}
        assert (
            reply.header == wire.encode_reply({name: np.ascontiguousarray(part) for name, part in mine.items()}).header
        )
        for name, values in wire.decode(wire.reply_layout(reply.header), reply.body).items():
            np.testing.assert_array_equal(values, mine[name])
            assert values.flags.writeable


@pytest.mark.parametrize(
    "message",
    [
        wire.encode_request({"a": np.ones((1, 2)), "b": np.ones((1, 2))}),
        wire.encode_request({"x": np.array(["a", "b"], object)}),
        wire.encode_request({"x": np.ones((1, 2))}, is_alone=True),
        wire.encode_request({"x": np.ones(())}),
        wire.encode_request({"x": np.ones((0, 2))}),
    ],
    ids=["two inputs", "text", "alone", "no rows", "empty"],
)
def test_what_cannot_be_laid_row_behind_row_is_not_joined(message: wire.Message) -> None:
    assert joinable(message.header) is None


@pytest.mark.parametrize(
    "outputs",
    [{"y": np.ones(7)}, {"y": np.ones(())}, {"y": np.array(["a", "b"], object)}, {"x": np.ones(4), "y": np.ones(3)}],
    ids=["rows left over", "no rows", "text", "one of two"],
)
def test_an_answer_that_has_not_as_many_rows_is_refused(outputs: dict[str, np.ndarray]) -> None:
    message = wire.encode_reply(outputs)
    with pytest.raises(WireError, match="not one of 2 requests"):
        divided(wire.Reply(message.header, memoryview(b"".join(message.buffers))), 2)
