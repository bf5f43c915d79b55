"""JSON whose text was read once is known the next time, and only where nothing but the numbers differs."""

import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserve import wire
from modelserve.errors import ModelServeError, WireError
from modelserve.runtime.server.formats import oip, pattern
from modelserve.runtime.server.formats.question import Question
from modelserve.runtime.server.models.served import Face
from modelserve.session import Session
from modelserve.tensors import Signature, TensorSpec
from modelserve.testing import models

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
LINEAR = models.linear()


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oip, "_patterns", pattern.Patterns())
        yield


def face(signature: Signature, digest: str = "0") -> Face:
    return Face("model", "1", signature, digest)


MODEL = face(LINEAR.signature, LINEAR.digest)


def body(data: Any, shape: tuple[int, ...] = ROWS.shape, name: str = "x", datatype: str = "FP32", **more: Any) -> bytes:
    return json.dumps({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]} | more).encode()


def replied(answers: dict[str, np.ndarray]) -> wire.Reply:
    """The answers as they come from the workers."""
    message = wire.encode_reply(answers)
    return wire.Reply(message.header, memoryview(b"".join(message.buffers)))


def is_known(question: Question[Any]) -> bool:
    """Whether it was made by a pattern, and not by a full reading."""
    return isinstance(question.answer, partial)


def asked_twice(first: bytes, second: bytes, model: Face = MODEL) -> Question[Any]:
    assert not is_known(oip.read(first, None, model))
    return oip.read(second, None, model)


@pytest.mark.parametrize("nested", [True, False])
def test_other_numbers_within_the_same_text_are_read_and_answered_alike(nested: bool) -> None:
    def data(rows: np.ndarray) -> Any:
        return (rows if nested else rows.reshape(-1)).tolist()

    known = asked_twice(body(data(ROWS)), body(data(ROWS + 1)))
    assert is_known(known)
    oip._patterns = pattern.Patterns()
    whole = oip.read(body(data(ROWS + 1)), None, MODEL)
    assert not is_known(whole)
    assert (known.message.header, known.rows, known.timeout_s) == (whole.message.header, whole.rows, whole.timeout_s)
    assert [bytes(one) for one in known.message.buffers] == [bytes(one) for one in whole.message.buffers]
    reply = replied(Session(LINEAR).run({"x": ROWS + 1}))
    assert known.answer(reply).body == whole.answer(reply).body


def test_a_model_that_is_served_under_two_names_answers_by_the_one_that_was_asked() -> None:
    other = Face("other", "7", LINEAR.signature, LINEAR.digest)
    known = asked_twice(body(ROWS.tolist()), body(ROWS.tolist()))
    under_another = oip.read(body(ROWS.tolist()), None, other)
    assert is_known(under_another)
    reply = replied(Session(LINEAR).run({"x": ROWS}))
    assert json.loads(known.answer(reply).body)["model_name"] == "model"
    said = json.loads(under_another.answer(reply).body)
    assert (said["model_name"], said["model_version"]) == ("other", "7")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (body([[1, 2, 3, "4"]] * 3), "numbers"),
        (body([[1, 2, 3]] * 3), "takes 12 values|has"),
        (body([[1, 2, 3, 4], [5], [1, 2, 3, 4]]), "same length"),
        (body([[1, 2, 3, 1e300]] * 3), "cannot hold"),
        (body([[[1, 2, 3, 4]]] * 3), "shape"),
        (body(ROWS.tolist())[:-3] + b', "data": 1]}', "not JSON|does not fit|numbers"),
        (body(ROWS.tolist()).replace(b"]]", b"]"), "not JSON"),
        (body(ROWS.tolist(), parameters={"timeout": "x"}), "timeout"),
    ],
    ids=["text", "too few", "ragged", "too large", "too deep", "more text", "no end", "other text"],
)
def test_what_does_not_fit_is_refused_with_the_message_of_a_full_reading(second: bytes, message: str) -> None:
    assert is_known(asked_twice(body(ROWS.tolist()), body(ROWS.tolist())))
    with pytest.raises(WireError, match=message) as known:
        oip.read(second, None, MODEL)
    oip._patterns = pattern.Patterns()
    with pytest.raises(WireError) as unknown:
        oip.read(second, None, MODEL)
    assert str(known.value) == str(unknown.value)


@pytest.mark.parametrize("value", [None, "Infinity"])
def test_what_stands_for_no_number_is_read_in_full(value: Any) -> None:
    numbers = ROWS.tolist()
    numbers[1][2] = value
    read = asked_twice(body(ROWS.tolist()), body(numbers))
    assert not is_known(read)
    got = np.frombuffer(read.message.buffers[0], np.float32).reshape(3, 4)[1, 2]
    assert np.isnan(got) if value is None else np.isinf(got)


def test_a_model_that_takes_no_nan_still_refuses_it() -> None:
    spec = TensorSpec("x", "float32", ("batch", 4), allows_nan=False)
    model = face(dataclasses.replace(LINEAR.signature, inputs=(spec,)))
    assert is_known(asked_twice(body(ROWS.tolist()), body(ROWS.tolist()), model))
    numbers = ROWS.tolist()
    numbers[0][0] = None
    with pytest.raises(ModelServeError, match="NaN"):
        oip.read(body(numbers), None, model)


@pytest.mark.parametrize(
    "request_",
    [
        body(ROWS.tolist(), id="mine"),
        body(ROWS.tolist(), parameters={"binary_data_output": True}),
        body(ROWS[0].tolist(), (4,)),
        body(ROWS.tolist(), datatype="FP64"),
        body(np.zeros((4096, 4)).tolist(), (4096, 4)),
    ],
    ids=["an id", "raw bytes wanted", "one row without its axis", "another dtype", "large"],
)
def test_other_requests_are_read_in_full_each_time(request_: bytes) -> None:
    assert not is_known(asked_twice(request_, request_))


def test_data_that_reads_like_its_shape_is_not_confused_with_it() -> None:
    signature = Signature((TensorSpec("x", "int64", ("batch",)),), (TensorSpec("y", "int64", ("batch",)),))
    model = face(signature)
    first = b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[1]}]}'
    assert not is_known(asked_twice(first, first.replace(b'"data":[1]', b'"data":[5]'), model))
    read = oip.read(first.replace(b'"data":[1]', b'"data":[7]'), None, model)
    assert np.frombuffer(read.message.buffers[0], np.int64).tolist() == [7]
    with pytest.raises(WireError, match="takes 2 values"):
        oip.read(first.replace(b'"shape":[1]', b'"shape":[2]'), None, model)


def test_what_stands_behind_the_numbers_counts() -> None:
    first, second = (body(ROWS.tolist(), parameters={"timeout": timeout}) for timeout in (2_000_000, 3_000_000))
    assert is_known(asked_twice(first, first))
    assert oip.read(first, None, MODEL).timeout_s == 2
    assert oip.read(second, None, MODEL).timeout_s == 3


def test_a_model_that_answers_with_text_is_answered_as_ever() -> None:
    signature = Signature((LINEAR.signature.inputs[0],), (TensorSpec("y", "string", ("batch",)),))
    known = asked_twice(body(ROWS.tolist()), body(ROWS.tolist()), face(signature))
    said = json.loads(known.answer(replied({"y": np.array(["a", "b", "c"], object)})).body)
    assert said["outputs"] == [{"name": "y", "datatype": "BYTES", "shape": [3], "data": ["a", "b", "c"]}]


def test_another_model_is_asked_in_full() -> None:
    oip.read(body(ROWS.tolist()), None, MODEL)
    with pytest.raises(ModelServeError):
        oip.read(body(ROWS.tolist()), None, face(models.linear(features=5).signature, "another"))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern, "_MODELS", 3)
    for number in range(12):
        for rows in range(1, 20):
            oip.read(body(np.ones((rows, 4)).tolist(), (rows, 4)), None, face(LINEAR.signature, f"{number}"))
    assert len(oip._patterns._known) == 3
    assert {len(known) for known in oip._patterns._known.values()} == {8}


@given(
    st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
        min_size=2,
        max_size=2,
    ),
    st.sampled_from([None, 0, 1]),
)
def test_known_or_not_the_workers_get_the_same_bytes(numbers: list[list[float]], indent: int | None) -> None:
    content = json.dumps(
        {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": numbers}]}, indent=indent
    ).encode()
    oip._patterns = pattern.Patterns()
    first = oip.read(content, None, MODEL)
    second = oip.read(content, None, MODEL)
    assert bytes(first.message.buffers[0]) == bytes(second.message.buffers[0]) == np.array(numbers, "f4").tobytes()
    assert first.message.header == second.message.header
