"""Bad input of every kind: a 4xx that names what is wrong, in bounded time and memory, and no worker is harmed."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelserve.runtime.server.http import listener
from modelserve.runtime.server.http.limits import Limits
from modelserve.runtime.server.settings import ServerSettings
from modelserve.testing import models
from modelserve.testing.serving import ServerThread

GOOD = b'{"instances":[[1,2,3,4]]}'
JSON = {"content-type": "application/json"}
INFER = "/v2/models/linear/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    patch = pytest.MonkeyPatch()
    patch.setenv("MODELSERVE_HOME", str(tmp_path_factory.mktemp("home")))
    quick = Limits(
        body_bytes=4 << 20, bodies_bytes=16 << 20, head_timeout_s=1, body_grace_s=1, idle_timeout_s=1, linger_s=1
    )
    patch.setattr(ServerSettings, "limits", quick)
    patch.setattr(listener, "_TICK_S", 0.2)
    folder = tmp_path_factory.mktemp("models")
    for name, bundle in {"linear": models.linear(), "two": models.two_inputs(), "words": models.text()}.items():
        shutil.copytree(bundle.path, folder / name)
    with ServerThread(models=folder, default_model="linear") as running:
        yield running
    patch.undo()


@pytest.fixture(autouse=True)
def _unharmed(server: ServerThread) -> Iterator[None]:
    """Whatever a test sends: afterwards the same workers answer, and nothing is held for it."""
    before = _workers(server)
    yield
    assert ask(server, "/invocations", GOOD, JSON)[0] == 200
    assert _workers(server) == before
    _until(lambda: server.server._listener._bodies_bytes == 0)


def _workers(server: ServerThread) -> list[int]:
    return sorted(worker.pid for one in server.server.repository.served() for worker in one.pool.status().workers)


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end, "It is not so after 10 seconds."


def head(path: str, length: int | None, headers: dict[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def ask(server: ServerThread, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    return exchange(server, head(path, len(body), headers) + body)


def exchange(server: ServerThread, content: bytes, *, close: bool = False) -> tuple[int, dict[str, Any]]:
    """Send these bytes; the first answer's status and JSON."""
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=20) as wire:
        # Refused before it was read: the answer is there all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.sendall(content)
        if close:
            wire.shutdown(socket.SHUT_WR)
        return read_answer(wire)


def read_answer(wire: socket.socket) -> tuple[int, dict[str, Any]]:
    received = b""
    while b"\r\n\r\n" not in received:
        part = wire.recv(65536)
        if not part:
            return 0, {}
        received += part
    first, _, body = received.partition(b"\r\n\r\n")
    lines = first.decode().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length"))
    while len(body) < length:
        body += wire.recv(65536)
    return int(lines[0].split()[1]), json.loads(body[:length] or b"{}")


def infer(**changed: Any) -> bytes:
    given = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4], **changed}
    return json.dumps({"inputs": [{name: value for name, value in given.items() if value is not ...}]}).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (infer()[:-5], "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `inputs`"),
        (b'{"inputs":[]}', "missing: 'x'"),
        (b'{"inputs":[{"name":1}]}', "$.inputs[0].name"),
        (infer(data=[1, 2, 3]), "takes 4 values, got 3"),
        (infer(data=[[1, 2], [3]]), "same length"),
        (infer(data=[[1, 2], [3, 4]]), "says shape [1, 4]"),
        (infer(data=["a", 2, 3, 4]), "$[0]"),
        (infer(data=[1, 2, 3, True]), "$[3]"),
        (infer(data=[1, 2, 3, {}]), "$[3]"),
        (infer(data={}), "'x'"),
        (infer(data=...), "needs 'data'"),
        (infer(data=[1e300, 2, 3, 4]), "float32 cannot hold"),
        (infer().replace(b"[1, 2, 3, 4]", b"[NaN, 2, 3, 4]"), "not JSON"),
        (infer().replace(b"[1, 2, 3, 4]", b"[Infinity, 2, 3, 4]"), "not JSON"),
        (infer().replace(b"[1, 2, 3, 4]", b"[1e999, 2, 3, 4]"), "out of range"),
        (infer(datatype="INT8", data=[1, 2, 3, 300]), "int8 cannot hold"),
        (infer(datatype="INT64", data=[1, 2, 3, 1 << 70]), "int64 cannot hold"),
        (infer(datatype="UINT8", data=[1, 2, 3, -1]), "uint8 cannot hold"),
        (infer(datatype="INT64", data=[1, 2, 3, 0.5]), "$[3]"),
        (infer(datatype="FP13"), "'FP13'"),
        (infer(shape=[1, 5]), "takes 5 values"),
        (infer(shape=[-1, -4]), "'x'"),
        (infer(shape=[1 << 62, 1 << 62]), "'x'"),
        (infer(shape=[1] * 100), "'x'"),
        (infer(shape="4"), "$.inputs[0].shape"),
        (infer(name="z"), "unknown: 'z'"),
        (infer(parameters={"shared_memory_region": "r"}), "shared_memory_region"),
        (infer(parameters={"binary_data_size": 16}), "both"),
        (infer(parameters={"binary_data_size": "16"}, data=...), "binary_data_size"),
        (b'{"inputs":' + b"[" * 100_000, "$.inputs[0]"),
        (b'{"other":' + b"[" * 100_000, "nested too deeply"),
        (infer(data=...)[:-3] + b',"data":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}", "nested"),
        (infer(data=...)[:-3] + b',"data":' + b"[" * 40 + b"]" * 40 + b"}]}", "32 lists deep"),
        (json.dumps({**json.loads(infer()), "outputs": [{"name": "q"}]}).encode(), "no output 'q'"),
        (json.dumps({**json.loads(infer()), "outputs": [{"name": "y"}] * 2}).encode(), "asked for once"),
        (json.dumps({**json.loads(infer()), "parameters": {"timeout": "soon"}}).encode(), "timeout"),
        (json.dumps({"inputs": json.loads(infer())["inputs"] * 2}).encode(), "stands twice"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_the_field(server: ServerThread, body: bytes, message: str) -> None:
    status, answer = ask(server, INFER, body, JSON)
    assert status == 400, answer
    assert message in answer["error"]
    assert answer["detail"] == answer["error"]
    assert answer["status"] == 400


def binary(
    content: bytes, *, size: Any, shape: list[int], datatype: str = "FP32", name: str = "x"
) -> tuple[bytes, int]:
    tensor = {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    return header + content, len(header)


@pytest.mark.parametrize(
    ("made", "length", "message"),
    [
        (binary(b"\0" * 16, size=16, shape=[1, 4]), "9999", "inference-header-content-length"),
        (binary(b"\0" * 16, size=16, shape=[1, 4]), "-1", "inference-header-content-length"),
        (binary(b"\0" * 16, size=16, shape=[1, 4]), "1e1", "inference-header-content-length"),
        (binary(b"\0" * 16, size=16, shape=[1, 4]), "9" * 40, "inference-header-content-length"),
        (binary(b"\0" * 16, size=16, shape=[1, 4]), "3", "not JSON"),
        (binary(b"\0" * 12, size=16, shape=[1, 4]), None, "only 12 are left"),
        (binary(b"\0" * 20, size=16, shape=[1, 4]), None, "20 bytes follow"),
        (binary(b"\0" * 12, size=12, shape=[1, 4]), None, "takes 16 bytes"),
        (binary(b"\0" * 16, size=-16, shape=[1, 4]), None, "binary_data_size -16"),
        (binary(b"\0" * 16, size=1 << 70, shape=[1, 4]), None, "only 16 are left"),
        (binary(b"\0" * 16, size=16, shape=[1 << 40, 1 << 40]), None, "takes"),
        (binary(b"\0" * 16, size=16, shape=[-1, -4]), None, "shape"),
        (binary(b"\0" * 16, size=16, shape=[1] * 70), None, "shape"),
        (binary(b"\2\0\0\0", size=4, shape=[1, 4], datatype="BOOL"), None, "BOOL"),
    ],
)
def test_wrong_lengths_in_the_binary_header_are_refused(
    server: ServerThread, made: tuple[bytes, int], length: str | None, message: str
) -> None:
    body, right = made
    status, answer = ask(server, INFER, body, {"inference-header-content-length": length or str(right)})
    assert status == 400, answer
    assert message in answer["error"]


@pytest.mark.parametrize(
    "content",
    [b"\xff\xff\xff\xff", b"\x05\0\0\0ab", b"\x01\0\0\0\xff", b"\0\0", b"\0\0\0\0\0\0\0\0"],
)
def test_text_of_wrong_lengths_is_refused(server: ServerThread, content: bytes) -> None:
    body, right = binary(content, size=len(content), shape=[1], datatype="BYTES", name="word")
    header = {"inference-header-content-length": str(right)}
    status, answer = ask(server, "/v2/models/words/infer", body, header)
    assert status == 400
    assert "'word'" in answer["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nobody/infer", 404),
        ("/v2/models/../infer", 404),
        ("/v2/models/..%2f..%2fetc%2fpasswd/infer", 404),
        ("/v2/models/%2e%2e/infer", 404),
        ("/v2/models/linear%00/infer", 404),
        ("/v2/models/linear/versions/99/infer", 404),
        ("/v2/models/linear/versions/../infer", 404),
        ("/v2/models//infer", 404),
        ("/v2/repository/models/..%2f..%2ftmp/load", 404),
        ("/nowhere", 404),
        ("/v2/models/linear", 405),
        ("no-slash", 400),
    ],
)
def test_paths_lead_nowhere_but_to_models(server: ServerThread, path: str, status: int) -> None:
    found, answer = ask(server, path, infer(), JSON)
    assert found == status, answer


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("application/json", b'{"instances":[]}', "empty"),
        ("application/json", b'{"instances":[[1,2,3,4]],"inputs":[[1,2,3,4]]}', "exactly one"),
        ("application/json", b'{"instances":[{"y":[1,2,3,4]}]}', "'y'"),
        ("application/json", b'{"instances":[{"x":[1,2,3,4]},{"z":1}]}', "Instance 1"),
        ("application/json", b'{"instances":"abc"}', "'x'"),
        ("application/json", b'{"dataframe_split":{"columns":["a","a"],"data":[[1,2]]}}', "different names"),
        ("application/json", b'{"dataframe_split":{"columns":["a","b"],"data":[[1]]}}', "Row 0"),
        ("application/json", b'{"dataframe_records":[1]}', "Record 0"),
        ("application/json", b'{"instances":[[1,2,3,4]],"parameters":{"outputs":["q"]}}', "'q'"),
        ("text/csv", b"a,b,c,d", "at least one row"),
        ("text/csv", b'a,b,c,d\n1,2,3,"4', "not CSV"),
        ("text/csv", b"a,b,c,d\n1,2,3,x\n", "Column 'd'"),
        ("text/csv", b"a,b,c,d\n1,2\n", "Row 0"),
        ("text/csv", b"\xff\xfe", "not CSV"),
        ("application/x-npy", b"\x93NUMPY", "numpy's format"),
        ("application/x-npy", b"junk", "numpy's format"),
        ("application/vnd.apache.arrow.stream", b"junk-junk-junk", "Arrow"),
        ("application/vnd.apache.arrow.stream", b"", "table"),
        ("application/vnd.apache.arrow.stream", b"\xff\xff\xff\xff\x10\0\0\0" + b"\xff" * 16, "Arrow"),
        ("application/vnd.apache.parquet", b"PAR1junkPAR1", "table"),
    ],
)
def test_tables_that_are_none_are_refused(server: ServerThread, kind: str, body: bytes, message: str) -> None:
    status, answer = ask(server, "/invocations", body, {"content-type": kind})
    assert status == 400, answer
    assert message in answer["error"]


def test_a_pickle_in_an_npy_is_never_read(server: ServerThread, tmp_path: Any) -> None:
    content = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": (1, 4)}
    np.lib.format.write_array_header_1_0(content, header)
    marker = tmp_path / "ran"
    content.write(b"cposix\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    status, answer = ask(server, "/invocations", content.getvalue(), {"content-type": "application/x-npy"})
    assert status == 400
    assert "read from nobody" in answer["error"]
    assert not marker.exists()


def test_an_npy_longer_in_words_than_in_bytes_takes_no_memory(server: ServerThread) -> None:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4)})
    status, _ = ask(server, "/invocations", content.getvalue(), {"content-type": "application/x-npy"})
    assert status == 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_does_not_unfold(server: ServerThread, encoding: str) -> None:
    zeros = bytes(64 << 20)
    bomb = gzip.compress(zeros) if encoding == "gzip" else zlib.compress(zeros)
    status, answer = ask(server, INFER, bomb, {**JSON, "content-encoding": encoding})
    assert status == 413
    assert "unfolds" in answer["error"]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", b"junk"), ("gzip", gzip.compress(GOOD)[:-6]), ("br", GOOD), ("gzip, gzip", GOOD), ("deflate", b"")],
)
def test_encodings_that_are_none_are_refused(server: ServerThread, encoding: str, body: bytes) -> None:
    status, _ = ask(server, "/invocations", body, {**JSON, "content-encoding": encoding})
    assert status == 400


def test_a_table_that_unfolds_is_refused_before_it_does(server: ServerThread) -> None:
    content = io.BytesIO()
    many = pa.table({"a": pa.array(np.zeros(20_000_000, np.float32))})
    pq.write_table(pa.concat_tables([many] * 4), content, compression="snappy")
    assert len(content.getvalue()) < 4 << 20
    status, answer = ask(server, "/invocations", content.getvalue(), {"content-type": "application/vnd.apache.parquet"})
    assert status == 400
    assert "cells" in answer["error"]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_parquet_by_a_codec_without_bound_is_refused(server: ServerThread, codec: str) -> None:
    content = io.BytesIO()
    pq.write_table(pa.table({"a": [1.0]}), content, compression=codec)
    status, answer = ask(server, "/invocations", content.getvalue(), {"content-type": "application/vnd.apache.parquet"})
    assert status == 400
    assert codec.upper() in answer["error"]


def test_compressed_arrow_buffers_are_refused(server: ServerThread) -> None:
    content = io.BytesIO()
    table = pa.table({name: np.zeros(10_000, np.float32) for name in "abcd"})
    with pa.ipc.new_stream(content, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(table)
    kind = {"content-type": "application/vnd.apache.arrow.stream"}
    status, answer = ask(server, "/invocations", content.getvalue(), kind)
    assert status == 400
    assert "compressed" in answer["error"]


def test_a_column_of_nothing_does_not_become_memory(server: ServerThread) -> None:
    content = io.BytesIO()
    batch = pa.record_batch({"a": pa.nulls(1 << 30)})
    with pa.ipc.new_stream(content, batch.schema) as stream:
        stream.write_batch(batch)
    kind = {"content-type": "application/vnd.apache.arrow.stream"}
    status, answer = ask(server, "/invocations", content.getvalue(), kind)
    assert status == 400
    assert "cells" in answer["error"]


def test_an_unknown_media_type_is_refused(server: ServerThread) -> None:
    status, answer = ask(server, "/invocations", GOOD, {"content-type": "application/x-python-pickle"})
    assert status == 415
    assert "not read here" in answer["error"]


@pytest.mark.parametrize(
    "content",
    [
        b"junk\r\n\r\n",
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"FLY / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\nhost: b\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nhost : a\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: -2\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: +2\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2;\nx\r\n{}\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\n x: folded\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nhost: localhost\r\nx: a\rb\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\nhost: a\ncontent-length: 2\n\n{}",
    ],
)
def test_what_two_parties_could_read_differently_is_refused(server: ServerThread, content: bytes) -> None:
    """Request smuggling: nothing ambiguous is guessed at, and the connection ends with the refusal."""
    smuggled = b"GET /v2 HTTP/1.1\r\nhost: smuggled\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=20) as wire:
        wire.sendall(content + smuggled)
        status, _ = read_answer(wire)
        assert status == 400
        rest = b""
        while part := wire.recv(65536):
            rest += part
    assert b"HTTP/1.1 2" not in rest


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({f"x-{n}": "a" for n in range(200)}, 431),
        ({"x-long": "a" * 100_000}, 431),
        ({"content-length": "99999999999999999999999999"}, 400),
    ],
)
def test_heads_are_bounded(server: ServerThread, headers: dict[str, str], status: int) -> None:
    found, _ = exchange(server, head("/invocations", None, headers) + b"{}")
    assert found == status


def test_a_body_above_the_limit_is_refused_by_its_announcement(server: ServerThread) -> None:
    status, answer = exchange(server, head("/invocations", 5 << 20, JSON))
    assert status == 413
    assert "Send less" in answer["error"]


def test_a_body_above_the_limit_is_refused_while_it_comes(server: ServerThread) -> None:
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    status, _ = exchange(server, head("/invocations", None, {**JSON, "transfer-encoding": "chunked"}) + chunk * 8)
    assert status == 413


def test_all_bodies_together_are_bounded(server: ServerThread) -> None:
    waiting = [socket.create_connection(("127.0.0.1", server.server.port), timeout=20) for _ in range(5)]
    for wire in waiting:
        wire.sendall(head("/invocations", (4 << 20) - 1, JSON))
    statuses = [read_answer(wire)[0] for wire in waiting]
    for wire in waiting:
        wire.close()
    assert statuses.count(503) == 1  # at once
    assert statuses.count(408) == 4  # when their bodies did not come


@pytest.mark.long
@pytest.mark.parametrize(
    "part", [b"", b"POST /invo", head("/invocations", 100, JSON)[:-2], head("/invocations", 100, JSON) + b"{"]
)
def test_whoever_is_slow_is_let_go(server: ServerThread, part: bytes) -> None:
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=20) as wire:
        wire.sendall(part)
        status, _ = read_answer(wire)
    assert status == (408 if part else 0)
    assert time.monotonic() - start < 10


@pytest.mark.long
def test_what_comes_after_a_refusal_is_thrown_away(server: ServerThread, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=20) as wire:
        wire.sendall(head("/invocations", 200_000, JSON) + b"x" * 1000)
        assert read_answer(wire)[0] == 408
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.sendall(b"x" * 199_000)
            while wire.recv(65536):
                pass
    _until(lambda: server.server._listener.connections == 0)
    assert [record.message for record in caplog.records] == []


def test_whoever_stops_halfway_holds_nothing(server: ServerThread) -> None:
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=20) as wire:
        wire.sendall(head("/invocations", 1 << 20, JSON) + b"x" * 1000)
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=20) as wire:
        wire.sendall(head("/invocations", 1 << 20, JSON) + b"x" * 100_000)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset instead of an end


def test_whoever_only_stops_sending_still_has_an_answer(server: ServerThread) -> None:
    status, answer = exchange(server, head("/invocations", len(GOOD), JSON) + GOOD, close=True)
    assert status == 200
    assert len(answer["predictions"][0]) == 3


def test_pipelined_requests_are_answered_in_order(server: ServerThread) -> None:
    bodies = [json.dumps({"instances": [[n, 0, 0, 0]]}).encode() for n in range(20)]
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=20) as wire:
        wire.sendall(b"".join(head("/invocations", len(body), JSON) + body for body in bodies))
        received = b""
        while received.count(b"HTTP/1.1 200") < 20 or not received.endswith(b"]]}"):
            received += wire.recv(65536)
    weights = [
        json.loads(part.partition(b"\r\n\r\n")[2])["predictions"][0][0] for part in received.split(b"HTTP/1.1")[1:]
    ]
    steps = np.diff(weights)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)


def test_whoever_sends_too_far_ahead_is_cut_off(server: ServerThread) -> None:
    request = head("/invocations", len(GOOD), JSON) + GOOD
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=20) as wire:
        try:
            wire.sendall(request * 5000)
            while wire.recv(65536):
                pass
        except (ConnectionResetError, BrokenPipeError):
            return
    pytest.fail("5000 requests were taken from one client at once.")


def test_headers_of_a_client_reach_no_header_of_the_answer(server: ServerThread) -> None:
    for bad in ("a b", "x" * 500, "\x7f", "é"):
        content = head("/invocations", len(GOOD), {**JSON, "x-request-id": bad}) + GOOD
        with socket.create_connection(("127.0.0.1", server.server.port), timeout=20) as wire:
            wire.sendall(content)
            answer = wire.recv(65536)
        assert bad.encode() not in answer


def test_an_upgrade_is_not_followed(server: ServerThread) -> None:
    headers = {**JSON, "connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
    two = head("/invocations", len(GOOD), headers) + GOOD + head("/v2/models/linear/infer", 0, headers)
    assert exchange(server, two)[0] == 200
    assert exchange(server, head("/invocations", None, {**headers, "transfer-encoding": "chunked"}))[0] == 400
