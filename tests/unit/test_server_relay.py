"""Binary requests that were read once pass untouched the next time, and only where their bytes cannot matter."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from modelserve import wire
from modelserve.errors import ModelServeError
from modelserve.runtime.server.formats import oip, relay
from modelserve.runtime.server.formats.question import Question
from modelserve.runtime.server.models.served import Face
from modelserve.session import Session
from modelserve.tensors import Signature, TensorSpec
from modelserve.testing import models

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oip, "_relay", relay.Relay())


def face(signature: Signature, digest: str = "0") -> Face:
    return Face("model", "1", signature, digest)


def body(array: np.ndarray, name: str = "x", datatype: str = "FP32", **more: Any) -> tuple[bytes, bytes]:
    content = array.tobytes()
    tensor = {"name": name, "shape": array.shape, "datatype": datatype}
    header = json.dumps(
        {"inputs": [{**tensor, "parameters": {"binary_data_size": len(content)}}]}
        | {"parameters": {"binary_data_output": True}}
        | more
    ).encode()
    return header + content, str(len(header)).encode()


def asked_twice(first: tuple[bytes, bytes], second: tuple[bytes, bytes], model: Face) -> Question[Any]:
    oip.read(*first, model)
    return oip.read(*second, model)


def is_relayed(question: Question[Any]) -> bool:
    """Whether the workers are given the client's bytes themselves, and not an array's."""
    return all(isinstance(buffer.obj, bytes) for buffer in question.message.buffers)


def test_other_bytes_behind_the_same_json_pass_untouched_and_are_answered_alike() -> None:
    bundle = models.linear()
    model, session = face(bundle.signature, bundle.digest), Session(bundle)
    whole = oip.read(*body(ROWS), model)
    passed = oip.read(*body(ROWS + 1), model)
    assert (is_relayed(whole), is_relayed(passed)) == (False, True)
    assert (passed.message.header, passed.rows) == (whole.message.header, 3)
    layout = wire.request_layout(passed.message.header)
    answers = session.run(wire.decode(layout, b"".join(passed.message.buffers)), layout.outputs)
    np.testing.assert_array_equal(answers["y"], session.run({"x": ROWS + 1})["y"])
    reply = wire.encode_reply(answers)
    relayed, written = (
        one.answer(wire.Reply(reply.header, memoryview(b"".join(reply.buffers)))) for one in (passed, whole)
    )
    assert json.loads(relayed.body[0]) == json.loads(written.body[0])
    assert [bytes(piece) for piece in relayed.body[1:]] == [bytes(piece) for piece in written.body[1:]]
    assert int(dict(relayed.headers)[oip.HEADER_LENGTH]) == len(relayed.body[0])


@pytest.mark.parametrize(
    ("model", "request_"),
    [
        (
            face(
                dataclasses.replace(
                    models.linear().signature, inputs=(TensorSpec("x", "float32", ("batch", 4), allows_nan=False),)
                )
            ),
            body(ROWS),
        ),
        (face(models.linear().signature), body(ROWS.astype(np.float64), datatype="FP64")),
        (face(models.linear().signature), body(ROWS, id="mine")),
        (face(models.linear().signature), body(ROWS, parameters={})),
        (face(models.linear().signature), body(ROWS[0])),
    ],
    ids=["no NaN", "another dtype", "an id", "an answer in JSON", "one row without its axis"],
)
def test_what_has_to_be_looked_at_is_read_in_full_each_time(model: Face, request_: tuple[bytes, bytes]) -> None:
    assert not is_relayed(asked_twice(request_, request_, model))


def test_several_inputs_are_read_in_full_each_time() -> None:
    signature, example = models.two_inputs().signature, models.two_inputs().example()
    tensors = [
        {
            "name": spec.name,
            "shape": example[spec.name].shape,
            "datatype": oip.datatype_of(example[spec.name]),
            "parameters": {"binary_data_size": example[spec.name].nbytes},
        }
        for spec in signature.inputs
    ]
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    content = header + b"".join(example[spec.name].tobytes() for spec in signature.inputs)
    request = content, str(len(header)).encode()
    assert not is_relayed(asked_twice(request, request, face(signature)))


def test_a_model_that_takes_no_nan_refuses_it_behind_known_json() -> None:
    spec = TensorSpec("x", "float32", ("batch", 4), allows_nan=False)
    model = face(dataclasses.replace(models.linear().signature, inputs=(spec,)))
    oip.read(*body(ROWS), model)
    with pytest.raises(ModelServeError, match="NaN"):
        oip.read(*body(np.full_like(ROWS, np.nan)), model)


def test_bytes_of_another_length_and_another_model_are_read_in_full() -> None:
    signature = models.linear().signature
    content, length = body(ROWS)
    oip.read(content, length, face(signature))
    with pytest.raises(ModelServeError, match="bytes"):
        oip.read(content[:-4], length, face(signature))
    with pytest.raises(ModelServeError):
        oip.read(content, length, face(models.linear(features=5).signature, "another"))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_MOST", 4)
    model = face(models.linear().signature)
    for rows in range(1, 20):
        oip.read(*body(np.repeat(ROWS[:1], rows, axis=0)), model)
    assert len(oip._relay._known) == 4
