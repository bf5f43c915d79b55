"""What is written can be read; what is noise is refused, by WireError alone."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelserve import wire
from modelserve.errors import ModelServeError, WireError
from modelserve.tensors import OIP_DATATYPES, Array
from modelserve.testing import strategies

NAMES = st.text(min_size=1, max_size=8)
#: Of no axis, of an axis of 0, and of several.
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    dtype = draw(strategies.dtypes())
    if dtype == "string":
        text = st.text(st.characters(), max_size=6)  # with lone surrogates
        return draw(hnp.arrays(np.dtype(object), draw(SHAPES), elements=text, fill=st.nothing()))
    return draw(hnp.arrays(np.dtype(dtype), draw(SHAPES)))


MESSAGES = st.dictionaries(NAMES, arrays(), min_size=1, max_size=3)


@given(MESSAGES, st.lists(NAMES, max_size=2))
def test_a_request_is_read_as_it_was_written(tensors: dict[str, Array], outputs: list[str]) -> None:
    message = wire.encode_request(tensors, outputs)
    layout = wire.request_layout(message.header)
    assert layout.outputs == tuple(outputs)
    same(wire.decode(layout, b"".join(message.buffers)), tensors)


@given(MESSAGES)
def test_a_reply_is_read_as_it_was_written(tensors: dict[str, Array]) -> None:
    message = wire.encode_reply(tensors)
    same(wire.decode(wire.reply_layout(message.header), b"".join(message.buffers)), tensors)


def same(found: dict[str, Array], wanted: dict[str, Array]) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        # Bit for bit, NaN and minus zero too.
        assert (
            found[name].tolist() == array.tolist()
            if array.dtype == object
            else found[name].tobytes() == array.tobytes()
        )


@given(st.binary())
def test_noise_is_no_header(noise: bytes) -> None:
    for layout in (wire.request_layout, wire.reply_layout):
        with pytest.raises(WireError):
            layout(noise)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SIZES = st.integers(0, 4) | st.sampled_from([1 << 31, 1 << 61, 1 << 62]) | ANY_JSON
#: Headers that are nearly right: each part as it should be, or anything.
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=2) | ANY_JSON,
        "datatype": st.sampled_from(sorted(OIP_DATATYPES.values())) | ANY_JSON,
        "shape": st.lists(SIZES, max_size=3) | ANY_JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": SIZES}) | ANY_JSON,
        "data": st.lists(st.integers(-2, 300) | st.text(max_size=2), max_size=4) | ANY_JSON,
    },
)
HEADERS = st.fixed_dictionaries({"inputs": st.lists(ENTRIES, max_size=2) | ANY_JSON}, optional={"outputs": ANY_JSON})


@settings(max_examples=400)
@given(HEADERS, st.binary(max_size=40))
@example({"inputs": [{"name": "x", "datatype": [], "shape": [1], "data": [1]}]}, b"")
@example({"inputs": [{"name": "x", "datatype": "FP64", "shape": [0, 1 << 61], "data": []}]}, b"")
@example({"inputs": [{"name": "x", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}}]}, b"\2")
def test_what_is_nearly_a_message_is_read_or_refused_and_nothing_else_happens(content: dict, noise: bytes) -> None:
    with contextlib.suppress(WireError):
        layout = wire.request_layout(json.dumps(content).encode())
        body = (noise * (layout.body_bytes // max(len(noise), 1) + 1))[: min(layout.body_bytes, 4096)]
        for name, array in wire.decode(layout, body).items():
            assert array.shape == next(field.shape for field in layout.fields if field.name == name)


@given(MESSAGES, st.data())
def test_a_message_with_one_byte_changed_is_read_or_refused(tensors: dict[str, Array], data: st.DataObject) -> None:
    message = wire.encode_request(tensors)
    joined = bytearray(message.join())
    joined[data.draw(st.integers(0, len(joined) - 1))] = data.draw(st.integers(0, 255))
    size = len(message.header)
    with contextlib.suppress(WireError):
        wire.decode(wire.request_layout(bytes(joined[:size])), bytes(joined[size:]))


@given(st.binary() | ANY_JSON.map(lambda content: json.dumps(content).encode()))
def test_noise_is_no_error_message(noise: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(wire.decode_error(noise), ModelServeError)
