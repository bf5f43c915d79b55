"""Messages are the Open Inference Protocol's, and what is none is refused."""

import json
import math

import numpy as np
import pytest

from modelserve import wire
from modelserve.errors import DeadlineError, ModelServeError, OverloadedError, WireError
from modelserve.tensors import OIP_DATATYPES


def header(**entry: object) -> bytes:
    return json.dumps({"inputs": [{"name": "x", **entry}]}).encode()


def read(head: bytes, body: bytes = b"") -> dict:
    return wire.decode(wire.request_layout(head), body)


def test_a_request_is_the_protocols_header_and_little_endian_tensors() -> None:
    message = wire.encode_request({"x": np.array([[1, 2]], np.int16), "t": np.array(["hé"], object)}, ["y"])
    assert json.loads(message.header) == {
        "inputs": [
            {"name": "x", "shape": [1, 2], "datatype": "INT16", "parameters": {"binary_data_size": 4}},
            {"name": "t", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 7}},
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    assert message.join() == message.header + b"\x01\x00\x02\x00" + b"\x03\x00\x00\x00h\xc3\xa9"
    assert message.size_bytes == len(message.join())
    assert wire.request_layout(message.header).outputs == ("y",)


def test_an_array_travels_without_a_copy_and_is_read_where_it_lies() -> None:
    array = np.arange(4, dtype=np.float32)
    message = wire.encode_reply({"y": array})
    assert np.shares_memory(np.frombuffer(message.buffers[0], np.float32), array)
    body = bytearray(message.buffers[0])
    assert np.shares_memory(wire.decode(wire.reply_layout(message.header), body)["y"], np.frombuffer(body, np.uint8))


@pytest.mark.parametrize(("datatype", "value"), [("FP32", 1e300), ("FP16", 70000), ("FP32", -(10**60))])
def test_a_value_that_its_dtype_would_make_infinite_is_refused(datatype: str, value: float) -> None:
    with pytest.raises(WireError, match="cannot hold"):
        read(header(datatype=datatype, shape=[1], data=[value]))
    assert np.isinf(read(header(datatype=datatype, shape=[1], data=[math.inf]))["x"]).all()


def test_a_tensor_behind_one_of_odd_size_is_aligned_again() -> None:
    tensors = {"b": np.array([True]), "x": np.array([1.5, 2.5])}
    message = wire.encode_reply(tensors)
    array = wire.decode(wire.reply_layout(message.header), b"".join(message.buffers))["x"]
    assert array.flags.aligned
    assert array.tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("datatype", "data", "dtype"),
    [
        ("FP32", [[1, 2.5]], np.float32),
        ("INT64", [[1, -2]], np.int64),
        ("BOOL", [[True, False]], bool),
        ("BYTES", [["a", "b"]], object),
    ],
)
def test_values_may_stand_in_the_header_as_other_clients_write_them(datatype: str, data: list, dtype: type) -> None:
    array = read(header(datatype=datatype, shape=[1, 2], data=data))["x"]
    assert array.dtype == dtype
    assert array.tolist() == data


NO_HEADERS = {
    "not JSON": b"{",
    "not text": b"\xff\xfe\xff",
    "a list": b"[]",
    "no tensors": b'{"inputs": []}',
    "a reply": b'{"outputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}',
    "deep": b"[" * 100_000,
    "too long": b" " * (1 << 21),
    "no object": b'{"inputs": [1]}',
    "no name": b'{"inputs": [{"datatype": "FP32", "shape": [1], "data": [1]}]}',
    "one name twice": b'{"inputs": [%s, %s]}' % ((b'{"name": "x", "datatype": "FP32", "shape": [0], "data": []}',) * 2),
    "datatype unknown": header(datatype="FP31", shape=[1], data=[1]),
    "datatype a list": header(datatype=[], shape=[1], data=[1]),
    "shape negative": header(datatype="FP32", shape=[-1], data=[1]),
    "shape of truths": header(datatype="FP32", shape=[True], data=[1]),
    "shape no list": header(datatype="FP32", shape=1, data=[1]),
    "too many axes": header(datatype="FP32", shape=[1] * 65, data=[1]),
    "more than any memory": header(datatype="FP64", shape=[1 << 40, 1 << 40], parameters={"binary_data_size": 0}),
    "more than any memory, times nothing": header(datatype="FP64", shape=[0, 1 << 61], data=[]),
    "size not the shape's": header(datatype="FP32", shape=[2], parameters={"binary_data_size": 4}),
    "size negative": header(datatype="BYTES", shape=[1], parameters={"binary_data_size": -4}),
    "neither data nor size": header(datatype="FP32", shape=[1]),
    "too few data": header(datatype="FP32", shape=[2], data=[1]),
    "data of unequal depth": header(datatype="FP32", shape=[2], data=[1, [2]]),
    "outputs no list": b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "outputs": 1}',
}  # fmt: skip


@pytest.mark.parametrize("head", NO_HEADERS.values(), ids=NO_HEADERS)
def test_a_header_that_is_none_is_refused(head: bytes) -> None:
    with pytest.raises(WireError):
        wire.request_layout(head)


NO_BODIES = {
    "too short": (header(datatype="FP32", shape=[1], parameters={"binary_data_size": 4}), b"123"),
    "too long": (header(datatype="FP32", shape=[1], parameters={"binary_data_size": 4}), b"12345"),
    "neither true nor false": (header(datatype="BOOL", shape=[1], parameters={"binary_data_size": 1}), b"\2"),
    "text cut in its length": (header(datatype="BYTES", shape=[1], parameters={"binary_data_size": 2}), b"\1\0"),
    "text cut": (header(datatype="BYTES", shape=[1], parameters={"binary_data_size": 5}), b"\2\0\0\0a"),
    "too little text": (header(datatype="BYTES", shape=[2], parameters={"binary_data_size": 5}), b"\1\0\0\0a"),
    "too much text": (header(datatype="BYTES", shape=[0], parameters={"binary_data_size": 5}), b"\1\0\0\0a"),
    "no UTF-8": (header(datatype="BYTES", shape=[1], parameters={"binary_data_size": 5}), b"\1\0\0\0\xff"),
    "text for a number": (header(datatype="FP32", shape=[1], data=["1"]), b""),
    "a fraction for a whole number": (header(datatype="INT8", shape=[1], data=[1.5]), b""),
    "truth for a number": (header(datatype="INT8", shape=[1], data=[True]), b""),
    "a number too large": (header(datatype="INT8", shape=[1], data=[300]), b""),
    "a number beyond all floats": (header(datatype="FP64", shape=[1], data=[10**400]), b""),
}


@pytest.mark.parametrize(("head", "body"), NO_BODIES.values(), ids=NO_BODIES)
def test_a_body_that_is_not_what_the_header_says_is_refused(head: bytes, body: bytes) -> None:
    with pytest.raises(WireError):
        read(head, body)


def test_only_text_travels_as_objects() -> None:
    with pytest.raises(WireError, match="holds int 1; only text"):
        wire.encode_request({"x": np.array(["a", 1], object)})


@pytest.mark.parametrize(
    "error", [DeadlineError("Späť."), OverloadedError("Full.", retry_after_s=2.5), ModelServeError("")]
)
def test_an_error_arrives_in_its_own_class(error: ModelServeError) -> None:
    arrived = wire.decode_error(wire.encode_error(error))
    assert (type(arrived), str(arrived)) == (type(error), str(error))
    assert getattr(arrived, "retry_after_s", None) == getattr(error, "retry_after_s", None)


def test_an_error_of_a_newer_version_keeps_its_text() -> None:
    assert str(wire.decode_error(b'{"code": "melted", "error": "Too hot."}')) == "Too hot."


@pytest.mark.parametrize("wait", [math.nan, math.inf, -1, "soon", 10**400, None])
def test_a_time_to_wait_that_nobody_can_wait_is_refused(wait: object) -> None:
    with pytest.raises(WireError):
        wire.decode_error(json.dumps({"code": "overloaded", "error": "Full.", "retry_after_s": wait}).encode())


def test_every_dtype_has_a_datatype_of_its_own() -> None:
    assert len(set(OIP_DATATYPES.values())) == len(OIP_DATATYPES)
