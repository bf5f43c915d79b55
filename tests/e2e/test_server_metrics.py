"""What Prometheus is told, read back by its own parser."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text

from modelserve.testing import models
from modelserve.testing.serving import ServerThread

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "server.md").read_text()
ROWS = b'{"instances":[[1,2,3,4],[1,2,3,4]]}'


@pytest.fixture
def server() -> Iterator[ServerThread]:
    with ServerThread(model=models.linear().path) as running:
        yield running


def scrape(server: ServerThread, accept: str = "text/plain") -> dict[tuple[str, frozenset[str]], float]:
    """Values by the metric's name and its labels' values."""
    request = urllib.request.Request(f"{server.url}/metrics", headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read().decode()
    families = list((read_open if "openmetrics" in accept else read_text)(text))
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def ask(server: ServerThread, body: bytes = ROWS, path: str = "/predict") -> None:
    try:
        urllib.request.urlopen(f"{server.url}{path}", body, timeout=20).close()
    except urllib.error.HTTPError as error:
        error.close()


def test_requests_are_counted_by_what_came_of_them(server: ServerThread) -> None:
    ask(server)
    ask(server, b"junk")
    ask(server, path="/made-up-1")
    ask(server, path="/made-up-2")
    found = scrape(server)
    assert found["modelserve_ready", frozenset()] == 1
    assert found["modelserve_requests_total", frozenset({"model", "1", "ok"})] == 1
    assert found["modelserve_rows_total", frozenset({"model", "1"})] == 2
    assert found["modelserve_http_requests_total", frozenset({"POST", "/predict", "200"})] == 1
    assert found["modelserve_http_requests_total", frozenset({"POST", "/predict", "400"})] == 1
    assert found["modelserve_http_requests_total", frozenset({"unknown", "404"})] == 2
    assert found["modelserve_request_duration_seconds_bucket", frozenset({"model", "1", "+Inf"})] == 1
    assert 0 < found["modelserve_request_duration_seconds_sum", frozenset({"model", "1"})] < 60


def test_workers_are_counted_and_so_are_their_deaths(server: ServerThread) -> None:
    pool = server.server.repository.find("model").pool
    (worker,) = pool.status().workers
    assert worker.pid
    assert scrape(server)["modelserve_workers", frozenset({"model", "1", "ready"})] == 1
    os.kill(worker.pid, signal.SIGKILL)
    ask(server)
    while pool.status().restarts < 1:
        ask(server)
    server.server.repository.find("model")._status = None
    found = scrape(server)
    assert found["modelserve_worker_restarts_total", frozenset({"model", "1"})] == 1
    assert found["modelserve_memory_bytes", frozenset({"model", "1", "private"})] > 0


def test_both_formats_say_the_same_and_the_page_names_every_metric(server: ServerThread) -> None:
    ask(server)
    plain, open_metrics = scrape(server), scrape(server, "application/openmetrics-text; version=1.0.0")
    assert set(plain) <= set(open_metrics)
    described = set(re.findall(r"`(modelserve_\w+)`", PAGE))
    found = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name, _ in plain}
    assert found == described


def test_waiting_computing_and_company_are_told_apart() -> None:
    with ServerThread(model=models.slow(200).path) as server:
        body = json.dumps({"instances": [[1.0] * 128]}).encode()

        def timing() -> dict[str, tuple[float, str]]:
            with urllib.request.urlopen(f"{server.url}/predict", body, timeout=30) as answer:
                parts = [part.strip().split(";") for part in answer.headers["server-timing"].split(",")]
            return {name: (float(more[0].removeprefix("dur=")), ";".join(more[1:])) for name, *more in parts}

        alone = timing()
        assert list(alone) == ["queue", "compute", "total"]
        assert 0 < alone["compute"][0] <= alone["total"][0]
        assert alone["compute"][1] == 'desc="joined 1"'
        with ThreadPoolExecutor(16) as callers:
            crowded = list(callers.map(lambda _: timing(), range(64)))
        assert max(found["queue"][0] for found in crowded) > alone["queue"][0]
        assert any(found["compute"][1] != 'desc="joined 1"' for found in crowded)
        found = scrape(server)
        for name in ("modelserve_queue_seconds", "modelserve_compute_seconds", "modelserve_batch_requests"):
            assert found[f"{name}_count", frozenset({"model", "1"})] == 65
            assert found[f"{name}_sum", frozenset({"model", "1"})] > 0
