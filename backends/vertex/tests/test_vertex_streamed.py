"""Answers in pieces: put together they are the same bits, and what is not whole is never taken for an answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1 as v1

from modelserve.backend import DeploymentSpec, Request
from modelserve.backend.oip import SIZED
from modelserve.deployment import Deployment
from modelserve.errors import (
    BackendError,
    ConfigError,
    DeadlineError,
    InputError,
    ModelRunError,
    ModelServeError,
    OverloadedError,
    WireError,
)
from modelserve.standin.faults import BrokenOff
from modelserve.standin.loopback import Answered, Broken, Exchange, LoopbackServer, Pieces, answering
from modelserve.testing import models
from modelserve.wire import Reply, decode, encode_reply, encode_request, reply_layout
from modelserve_vertex import VertexBackend, streamed
from modelserve_vertex.calls import Calls
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.rehearsal import VertexRehearsal
from modelserve_vertex.way import Way, way_to

OPTIONS = VertexOptions(project="demo", region="europe-west4", streamed_answers=True)
NAME = "projects/demo/locations/europe-west4/endpoints/churn"
VALUES = np.arange(6, dtype=np.float32)
REPLY = encode_reply({"y": VALUES})
SIZE = REPLY.size_bytes
KIND = {"content-type": f"{SIZED};json-header-size={len(REPLY.header)}"}


@contextmanager
def calls_to(answer: Callable[[], Answered]) -> Iterator[Calls]:
    """An endpoint that answers every request with this."""

    def handle(_exchange: Exchange) -> Answered:
        return answer()

    with LoopbackServer(answering(handle)) as server:
        calls = Calls(Way(server.url, f"/v1/{NAME}:streamRawPredict"), AnonymousCredentials(), OPTIONS)
        try:
            yield calls
        finally:
            calls.close()


def in_pieces(*pieces: bytes, **headers: str) -> Callable[[], Answered]:
    return lambda: Answered(200, headers=KIND | headers, pieces=(piece for piece in pieces))


def asked(calls: Calls, timeout_s: float = 10.0) -> Reply:
    message = encode_request({"x": np.zeros(1, np.float32)})
    return calls.submit(Request(message, 1, timeout_s), "y").result()


def then(end: Callable[[], object], content: bytes) -> Callable[[], Answered]:
    """An answer that begins with this, and then meets that."""

    def pieces() -> Pieces:
        yield content
        end()

    return lambda: Answered(200, headers=KIND, pieces=pieces())


def cut() -> None:
    raise Broken


@pytest.mark.parametrize("size", [1, 7, SIZE - 1, SIZE], ids=lambda size: f"{size} bytes")
def test_pieces_of_any_size_are_the_same_reply(size: int) -> None:
    whole = REPLY.join()
    with calls_to(in_pieces(*(whole[at : at + size] for at in range(0, SIZE, size)))) as calls:
        reply = asked(calls)
    assert (reply.header, bytes(reply.body)) == (REPLY.header, VALUES.tobytes())
    assert decode(reply_layout(reply.header), reply.body)["y"].tolist() == VALUES.tolist()


def test_an_answer_without_binary_tensors_is_all_header() -> None:
    content = b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1.5]}]}'
    with calls_to(in_pieces(content[:9], content[9:], **{"content-type": "application/json"})) as calls:
        reply = asked(calls)
    assert decode(reply_layout(reply.header), reply.body)["y"].tolist() == [1.5]


@pytest.mark.parametrize("end", [cut, lambda: None], ids=["the connection breaks", "the connection ends well"])
@pytest.mark.parametrize("here", [0, 5, len(REPLY.header), SIZE - 1], ids=lambda here: f"after {here} bytes")
def test_an_answer_that_ends_too_early_is_an_error_and_the_next_is_answered(end: Callable[[], None], here: int) -> None:
    answers = iter([then(end, REPLY.join()[:here]), in_pieces(REPLY.join())])
    with calls_to(lambda: next(answers)()) as calls:
        with pytest.raises(BackendError, match=f"broke off after {here}.* Ask again") as refused:
            asked(calls)
        assert type(refused.value) is BackendError
        assert (f"of {SIZE} bytes" in str(refused.value)) is (here >= len(REPLY.header))
        assert bytes(asked(calls).body) == VALUES.tobytes()


def test_an_answer_that_goes_on_too_long_is_an_error() -> None:
    with calls_to(in_pieces(REPLY.join(), b"more")) as calls, pytest.raises(WireError, match=f"after the {SIZE} bytes"):
        asked(calls)


def test_bytes_that_are_no_reply_are_an_error() -> None:
    with calls_to(in_pieces(b"#" * SIZE)) as calls, pytest.raises(WireError, match="not JSON"):
        asked(calls)
    with (
        calls_to(in_pieces(b"x", **{"content-type": f"{SIZED};json-header-size=many"})) as calls,
        pytest.raises(ModelServeError),
    ):
        asked(calls)


def test_an_answer_too_large_for_the_memory_is_refused_when_its_header_is_here() -> None:
    count = streamed.STREAMED_BYTES // 4
    announced = {"name": "y", "shape": [count], "datatype": "FP32", "parameters": {"binary_data_size": count * 4}}
    header = json.dumps({"outputs": [announced]}).encode()
    waiting = threading.Event()
    answer = then(lambda: waiting.wait(20), header)
    kind = {"content-type": f"{SIZED};json-header-size={len(header)}"}
    with calls_to(lambda: Answered(200, headers=kind, pieces=answer().pieces)) as calls:
        started = time.monotonic()
        with pytest.raises(InputError, match="predict_dataset"):
            asked(calls)
        assert time.monotonic() - started < 10
        waiting.set()


def test_an_answer_that_announces_nothing_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "STREAMED_BYTES", 100)
    pieces = [b"[" * 60] * 2
    with (
        calls_to(in_pieces(*pieces, **{"content-type": "application/json"})) as calls,
        pytest.raises(InputError, match="more than 100 bytes"),
    ):
        asked(calls)


def test_a_deadline_holds_between_two_pieces() -> None:
    waiting = threading.Event()
    with calls_to(then(lambda: waiting.wait(20), REPLY.join()[:-1])) as calls:
        with pytest.raises(DeadlineError, match=r"within 0\.3 s"):
            asked(calls, timeout_s=0.3)
        waiting.set()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answered(429, b'{"error": {"code": 429, "status": "X", "message": "Many."}}'), OverloadedError),
        (Answered(422, b'{"error": "said", "code": "model_run"}'), ModelRunError),
        (Answered(400, b'{"error": {"code": 400, "message": "Response payload size exceeds"}}'), InputError),
    ],
    ids=lambda one: one.__name__ if isinstance(one, type) else str(one.status),
)
def test_an_error_is_told_as_for_whole_answers(answer: Answered, kind: type[ModelServeError]) -> None:
    with calls_to(lambda: answer) as calls, pytest.raises(kind) as refused:
        asked(calls)
    assert type(refused.value) is kind


PRIVATE = {"network": "projects/1/global/networks/n"}


@pytest.mark.parametrize(("kind", "more"), [("shared", {}), ("private", PRIVATE)])
def test_kinds_whose_answers_do_not_stream_refuse_the_option(kind: str, more: dict[str, str]) -> None:
    told = f"streamed_answers.*kind '{kind}'.*Use endpoint = 'dedicated' or 'psc', or leave streamed_answers out"
    with pytest.raises(ConfigError, match=told):
        VertexBackend({"project": "demo", "region": "europe-west4", "endpoint": kind, "streamed_answers": True, **more})
    # What one attaches to may be of another kind than the options say.
    with pytest.raises(ConfigError, match=told):
        way_to(v1.Endpoint(name=NAME, **more), "https://region.example", "", streams=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"dedicated_endpoint_enabled": True, "dedicated_endpoint_dns": "own.example"},
        {"private_service_connect_config": {"enable_private_service_connect": True}},
    ],
    ids=["dedicated", "psc"],
)
def test_the_others_are_asked_by_another_method(fields: dict[str, object]) -> None:
    endpoint = v1.Endpoint(name=NAME, **fields)
    assert way_to(endpoint, "", "https://10.0.0.5", streams=True).path == f"/v1/{NAME}:streamRawPredict"
    assert way_to(endpoint, "", "https://10.0.0.5").path == f"/v1/{NAME}:rawPredict"


@pytest.mark.long
def test_streamed_answers_are_the_whole_ones_bit_for_bit(rehearsal: VertexRehearsal) -> None:
    bundle, faults = models.linear(features=1, outputs=100), rehearsal.cloud.faults
    rows = np.random.default_rng(0).normal(size=(5_000, 1)).astype(np.float32)
    with (
        Deployment(rehearsal.backend.deploy(bundle, DeploymentSpec("churn")), rehearsal.backend) as whole,
        Deployment(streaming(rehearsal).attach("churn"), rehearsal.backend) as in_pieces,
    ):
        answers = [deployment.predict(rows).tobytes() for deployment in (whole, in_pieces)]
        assert answers[0] == answers[1]
        assert [one for one in faults.calls if "Predict" in one] == ["RawPredict", "StreamRawPredict"]
        faults.plan("StreamRawPredict", BrokenOff())
        with pytest.raises(BackendError, match="broke off after"):
            in_pieces.predict(rows)
        with pytest.raises(InputError, match="Response payload size exceeds the limit: 10000000 bytes"):
            in_pieces.predict(np.resize(rows, (30_000, 1)))
        assert in_pieces.predict(rows[:3]).tobytes() == whole.predict(rows[:3]).tobytes()
    rehearsal.backend.delete("churn")
    assert rehearsal.leftovers() == []


def streaming(rehearsal: VertexRehearsal) -> VertexBackend:
    """Another backend for the same stand-in, to which answers come in pieces."""
    return VertexBackend({**rehearsal.options, "streamed_answers": True})
