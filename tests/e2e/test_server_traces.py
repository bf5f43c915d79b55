"""Traces as a collector receives them over the network, and log lines for every answer."""

from __future__ import annotations

import gzip
import http.server
import itertools
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tritonclient.grpc import service_pb2

from modelserve.errors import ConfigError
from modelserve.runtime.server.observe import traces
from modelserve.runtime.server.rpc.schema import SERVICE
from modelserve.testing import models
from modelserve.testing.serving import ServerProcess, ServerThread

ROW = b'{"instances":[[1,2,3,4]]}'
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(http.server.ThreadingHTTPServer):
    """What takes OTLP over HTTP, and keeps the spans."""

    def __init__(self) -> None:
        self.resources: list[dict[str, str]] = []
        self.spans: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Take)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def wait_for(self, count: int) -> dict[str, Any]:
        end = time.monotonic() + 20
        while len(self.spans) < count:
            assert time.monotonic() < end, f"Only {len(self.spans)} spans came."
            time.sleep(0.01)
        return {span.name: span for span in self.spans}


class _Take(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        for found in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append({one.key: one.value.string_value for one in found.resource.attributes})
            for scope in found.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing is written."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join(10)
    made.server_close()


def post(url: str, body: bytes = ROW, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_request_becomes_queue_batch_and_compute_within_the_callers_trace(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with ServerThread(model=models.linear().path) as server:
        before_ns = time.time_ns()
        assert post(f"{server.url}/predict", traceparent=f"00-{TRACE}-{PARENT}-01") == 200
        urllib.request.urlopen(f"{server.url}/readyz", timeout=20).close()
        spans = collector.wait_for(4)
    assert set(spans) == {"POST /predict", "queue", "batch", "compute"}
    whole, queue, batch, compute = (spans[name] for name in ("POST /predict", "queue", "batch", "compute"))
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert whole.parent_span_id.hex() == PARENT
    assert queue.parent_span_id == batch.parent_span_id == whole.span_id
    assert compute.parent_span_id == batch.span_id
    times = [
        before_ns,
        whole.start_time_unix_nano,
        queue.start_time_unix_nano,
        queue.end_time_unix_nano,
        compute.end_time_unix_nano,
        batch.end_time_unix_nano,
    ]
    # The two clocks are read one after the other, so that a span may seem to begin a moment too early.
    assert all(later - earlier > -1_000_000 for earlier, later in itertools.pairwise(times))
    assert batch.start_time_unix_nano == compute.start_time_unix_nano == queue.end_time_unix_nano
    assert collector.resources[0]["service.name"] == "modelserve"


def test_grpc_is_traced_alike_and_what_fails_is_marked(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with ServerThread(model=models.linear().path, grpc_port=0) as server:
        request = service_pb2.ModelInferRequest(model_name="model").SerializeToString()
        head = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
        with grpc.insecure_channel(server.grpc_address) as channel:
            ask = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            with pytest.raises(grpc.RpcError):
                ask(request, metadata=head, timeout=20)
        (span,) = collector.wait_for(1).values()
    assert (span.name, span.trace_id.hex()) == (f"POST /{SERVICE}/ModelInfer", TRACE)
    found = {one.key: one.value for one in span.attributes}
    assert found["http.response.status_code"].int_value == 400
    assert found["modelserve.model"].string_value == "model"
    assert collector.resources[0]["service.name"] == "shop"


def test_a_caller_who_does_not_sample_is_not_sampled(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    with ServerThread(model=models.linear().path) as server:
        assert post(f"{server.url}/predict", traceparent=f"00-{TRACE}-{PARENT}-00") == 200
        assert post(f"{server.url}/predict", traceparent="nonsense") == 200
    assert len(collector.wait_for(4)) == 4
    assert all(span.trace_id.hex() != TRACE for span in collector.spans)


@pytest.mark.parametrize(
    ("environment", "is_wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_nothing_is_sent_unless_the_variables_ask_for_it(environment: dict[str, str], is_wanted: bool) -> None:
    assert traces.wanted(environment) is is_wanted


@pytest.mark.parametrize("name", ["OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL"])
def test_what_is_not_spoken_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match="smoke"):
        traces.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: "smoke"}, "1")


def test_without_the_package_the_server_says_so_and_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with caplog.at_level(logging.WARNING):
        assert traces.from_environment({"OTEL_TRACES_EXPORTER": "otlp"}, "1") is None
    assert "modelserve[otel]" in caplog.text


def test_every_answer_has_its_line_with_its_id_and_no_content() -> None:
    with ServerProcess("--model", str(models.linear().path), "--access-log", "--grpc-port", "0") as process:
        trace = f"00-{TRACE}-{PARENT}-01"
        assert post(f"{process.url}/predict?secret=1", **{"x-request-id": "mine", "traceparent": trace}) == 200
        assert post(f"{process.url}/predict", b"junk") == 400
        with grpc.insecure_channel(process.grpc_address) as channel:
            channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=20)
        process.wait_for(f"POST /{SERVICE}/ServerLive")
    lines = [line for line in process.lines if line.get("logger") == "modelserve.access"]
    good, bad, live = lines
    assert good["message"] == "POST /predict 200"
    assert (good["request_id"], good["status"], good["body_bytes"]) == ("mine", 200, len(ROW))
    assert 0 < good["compute_ms"] <= good["duration_ms"]
    assert bad["status"] == 400
    assert "queue_ms" not in bad
    assert live["route"] == f"/{SERVICE}/ServerLive"
    assert "secret" not in json.dumps(lines)
