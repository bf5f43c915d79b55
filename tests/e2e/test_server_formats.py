"""Every way in which clients write rows, and that each is answered in kind with the same numbers."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelserve.bundle import Bundle
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.serving import ServerThread, bundle_folder

ROWS = np.array([[1, 2, 3, 4], [0.5, -1, 0, 2.25]], np.float32)
COLUMNS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    patch = pytest.MonkeyPatch()
    patch.setenv("MODELSERVE_HOME", str(tmp_path_factory.mktemp("home")))
    folder = bundle_folder(
        tmp_path_factory.mktemp("models"),
        linear=models.linear(),
        classifier=models.mlp(4),
        two=models.two_inputs(),
        words=models.text(),
    )
    with ServerThread(models=folder, default_model="linear", workers=2) as running:
        yield running
    patch.undo()


@pytest.fixture
def expected() -> np.ndarray:
    bundle: Bundle = models.linear()
    return Session(bundle).run({"x": ROWS})["y"]


def post(server: ServerThread, path: str, body: bytes, kind: str) -> tuple[bytes, str]:
    connection = HTTPConnection(server.address, timeout=30)
    connection.request("POST", path, body, {"content-type": kind})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content
    return content, answer.headers["content-type"]


def predictions(server: ServerThread, path: str, content: Any) -> Any:
    body, kind = post(server, path, json.dumps(content).encode(), "application/json")
    assert kind == "application/json"
    return json.loads(body)["predictions"]


@pytest.mark.parametrize("path", ["/invocations", "/predict", "/v1/models/linear:predict"])
@pytest.mark.parametrize(
    "content",
    [
        {"instances": ROWS.tolist()},
        {"instances": [{"x": row} for row in ROWS.tolist()]},
        {"inputs": ROWS.tolist()},
        {"inputs": {"x": ROWS.tolist()}},
        {"dataframe_split": {"columns": COLUMNS, "index": [0, 1], "data": ROWS.tolist()}},
        {"dataframe_split": {"data": ROWS.tolist()}},
        {"dataframe_records": [dict(zip(COLUMNS, row, strict=True)) for row in ROWS.tolist()]},
    ],
)
def test_rows_in_json_are_answered_by_row(
    server: ServerThread, expected: np.ndarray, path: str, content: dict[str, Any]
) -> None:
    np.testing.assert_allclose(predictions(server, path, content), expected, rtol=1e-6)


def test_outputs_can_be_asked_for_by_name(server: ServerThread) -> None:
    content = {"instances": ROWS.tolist(), "parameters": {"outputs": ["label", "probabilities"]}}
    first, second = predictions(server, "/v1/models/classifier:predict", content)
    assert set(first) == {"label", "probabilities"}
    assert isinstance(first["label"], int)
    assert len(second["probabilities"]) == 3


def test_several_inputs_come_by_name(server: ServerThread) -> None:
    content = {"instances": [{"left": [1, 1, 1], "right": 2}, {"left": [0, 0, 0], "right": 3}]}
    assert predictions(server, "/v1/models/two:predict", content) == [[3, 3, 3], [3, 3, 3]]


def test_text_is_answered_as_text(server: ServerThread) -> None:
    assert predictions(server, "/v1/models/words:predict", {"instances": ["größer", ""]}) == ["größer", ""]


def test_a_missing_number_is_a_number_that_is_missing(server: ServerThread) -> None:
    assert predictions(server, "/predict", {"instances": [[None, 2, 3, 4]]}) == [[None] * 3]


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def _arrow(frame: pd.DataFrame) -> bytes:
    content = io.BytesIO()
    table = pa.Table.from_pandas(frame)
    with pa.ipc.new_stream(content, table.schema) as stream:
        stream.write_table(table)
    return content.getvalue()


def _parquet(frame: pd.DataFrame) -> bytes:
    content = io.BytesIO()
    frame.to_parquet(content)
    return content.getvalue()


def _read_arrow(content: bytes) -> np.ndarray:
    with pa.ipc.open_stream(content) as stream:
        return np.stack(stream.read_all()["y"].to_numpy())


def _read_parquet(content: bytes) -> np.ndarray:
    return np.stack(pq.read_table(io.BytesIO(content))["y"].to_numpy())


@pytest.mark.parametrize(
    ("kind", "write", "read"),
    [
        ("text/csv", _csv, lambda content: np.loadtxt(io.BytesIO(content), delimiter=",")),
        ("application/vnd.apache.arrow.stream", _arrow, _read_arrow),
        ("application/vnd.apache.parquet", _parquet, _read_parquet),
    ],
)
def test_tables_are_answered_in_kind(
    server: ServerThread,
    expected: np.ndarray,
    kind: str,
    write: Callable[[pd.DataFrame], bytes],
    read: Callable[[bytes], np.ndarray],
) -> None:
    content, answered = post(server, "/invocations", write(pd.DataFrame(ROWS, columns=COLUMNS)), kind)
    assert answered == kind
    np.testing.assert_allclose(read(content), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["text/csv", "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"])
def test_words_in_a_table_reach_a_model_of_words(server: ServerThread, kind: str) -> None:
    frame = pd.DataFrame({"word": ["größer", "b", "größer"]})
    body = {"text/csv": _csv, "application/vnd.apache.parquet": _parquet}.get(kind, _arrow)(frame)
    content, _ = post(server, "/v1/models/words:predict", body, kind)
    assert "größer".encode() in content


@pytest.mark.parametrize("array", [ROWS, np.asfortranarray(ROWS), ROWS.astype(">f4"), ROWS.astype(np.float16)])
def test_an_array_is_answered_by_an_array(server: ServerThread, expected: np.ndarray, array: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    body, kind = post(server, "/invocations", content.getvalue(), "application/x-npy")
    assert kind == "application/x-npy"
    np.testing.assert_allclose(np.load(io.BytesIO(body), allow_pickle=False), expected, rtol=1e-5)


def test_the_protocol_is_understood_where_only_the_media_type_passes(
    server: ServerThread, expected: np.ndarray
) -> None:
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": 32}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    kind = f"application/vnd.sagemaker-triton.binary+json;json-header-size={len(header)}"
    body, answered = post(server, "/invocations", header + ROWS.tobytes(), kind)
    size = int(answered.partition("json-header-size=")[2])
    assert json.loads(body[:size])["outputs"][0]["shape"] == [2, 3]
    np.testing.assert_allclose(np.frombuffer(body[size:], np.float32).reshape(2, 3), expected, rtol=1e-6)


def test_the_protocol_is_understood_on_every_path(server: ServerThread, expected: np.ndarray) -> None:
    content = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": ROWS.tolist()}]}
    body, _ = post(server, "/invocations", json.dumps(content).encode(), "application/json")
    np.testing.assert_allclose(json.loads(body)["outputs"][0]["data"], expected.ravel(), rtol=1e-6)


@pytest.mark.parametrize(
    ("datatype", "values"), [("FP64", [1, 2.5, -3, 4]), ("FP16", [1, 2.5, -3, 4]), ("INT8", [1, 2, -3, 4])]
)
def test_other_datatypes_are_taken_where_no_value_changes(
    server: ServerThread, datatype: str, values: list[float]
) -> None:
    content = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": datatype, "data": values}]}
    body, _ = post(server, "/v2/models/linear/infer", json.dumps(content).encode(), "application/json")
    found = json.loads(body)["outputs"][0]["data"]
    np.testing.assert_allclose(found, Session(models.linear()).run({"x": np.array([values], np.float32)})["y"][0], 1e-5)


def test_lines_are_answered_while_more_are_still_to_come(server: ServerThread, expected: np.ndarray) -> None:
    """The first answer is read before the second line is sent; a bad line hurts no other."""
    connection = HTTPConnection(server.address, timeout=30)
    first_was_read = threading.Event()

    def lines() -> Iterator[bytes]:
        yield b"[1, 2, 3, 4]\n[0.5, -1, 0,"
        assert first_was_read.wait(30)
        yield b" 2.25]\n\nnonsense\n[1]\n[1, 2, 3, 4]"

    sending = threading.Thread(
        target=lambda: connection.request("POST", "/invocations", lines(), {"content-type": "application/jsonl"})
    )
    sending.start()
    # The answer begins before the request ends, which this client only knows by its socket.
    while connection.sock is None:
        pass
    answer = connection.sock.makefile("rb")
    received = b""
    while b"]\n" not in received:
        received += answer.readline()
    first_was_read.set()
    sending.join(30)
    while not received.endswith(b"0\r\n\r\n"):
        received += answer.readline()
    connection.close()
    found = [json.loads(line) for line in received.splitlines() if line[:1] in {b"[", b"{"}]
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    assert [set(one) for one in found[2:4]] == [{"error", "code"}] * 2
    assert found[4] == found[0]


def test_many_lines_keep_their_order(server: ServerThread) -> None:
    body = b"".join(b'"w%d"\n' % number for number in range(2000))
    content, kind = post(server, "/v1/models/words:predict", body, "application/jsonl")
    assert kind == "application/jsonl"
    assert content == body


def row_lines(values: list[Any], inputs: str = "x", outputs: list[str] | None = None) -> list[dict[str, Any]]:
    return [{"$row": [3, at], "inputs": {inputs: value}, "outputs": outputs or []} for at, value in enumerate(values)]


@pytest.mark.parametrize("kind", ["lines", "instances"])
def test_rows_of_a_data_set_say_which_they_are_and_fail_alone(server: ServerThread, kind: str) -> None:
    rows = row_lines([[1, 2, 3, 4], [1, 2, 3], [None, "Infinity", 0, 0], "x", [0.5, -1, 0, 2.25]], outputs=["y"])
    if kind == "lines":
        body = "".join(json.dumps(row) + "\n" for row in rows).encode()
        content, _ = post(server, "/invocations", body, "application/jsonlines")
        answers = [json.loads(line) for line in content.splitlines()]
    else:
        content, _ = post(server, "/predict", json.dumps({"instances": rows}).encode(), "application/json")
        answers = json.loads(content)["predictions"]
    assert [answer["$row"] for answer in answers] == [[3, at] for at in range(5)]
    assert [answer.get("code") for answer in answers] == [None, "signature", None, "wire", None]
    wanted = Session(models.linear()).run({"x": np.array([[1, 2, 3, 4], [0.5, -1, 0, 2.25]], np.float32)})["y"]
    np.testing.assert_allclose([answers[0]["outputs"]["y"], answers[4]["outputs"]["y"]], wanted, rtol=1e-6)
    assert set(map(str, answers[2]["outputs"]["y"])) <= {"None", "Infinity", "-Infinity"}


def test_many_rows_of_a_data_set_are_answered_each_by_its_own(server: ServerThread) -> None:
    values = np.random.default_rng(5).normal(size=(2000, 4)).astype(np.float32)
    body = "".join(json.dumps(row) + "\n" for row in row_lines(values.astype(float).tolist(), outputs=["y"])).encode()
    content, _ = post(server, "/invocations", body, "application/jsonl")
    answers = [json.loads(line) for line in content.splitlines()]
    assert [answer["$row"][1] for answer in answers] == list(range(2000))
    found = np.array([answer["outputs"]["y"] for answer in answers], np.float32)
    np.testing.assert_allclose(found, Session(models.linear()).run({"x": values})["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_a_batch_service_that_sends_everything_before_it_reads_is_answered(server: ServerThread) -> None:
    line = json.dumps(row_lines([[1.25, 2.5, 3.75, 4.125]], outputs=["y"])[0]).encode() + b"\n"
    body = line * 200_000
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        # Little room in between, so that answers which come too early have no place to wait.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        kind = "content-type: application/jsonl\r\nconnection: close"
        head = f"POST /invocations HTTP/1.1\r\nhost: {server.address}\r\ncontent-length: {len(body)}\r\n{kind}\r\n\r\n"
        client.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: client.recv(1 << 20), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b'"outputs"') == 200_000


def test_a_row_that_is_no_json_does_not_hide_the_others(server: ServerThread) -> None:
    good = json.dumps(row_lines([[1, 2, 3, 4]], outputs=["y"])[0]).encode()
    broken, strange = good[:-5], good.replace(b'"y"', b'"z"')
    content, _ = post(server, "/invocations", b"\n".join([good, broken, strange, good]), "application/jsonl")
    answers = [json.loads(line) for line in content.splitlines()]
    assert [answer.get("code") for answer in answers] == [None, "wire", "signature", None]
    assert [answer["$row"] for answer in answers] == [[3, 0], None, [3, 0], [3, 0]]
