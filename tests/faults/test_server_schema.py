"""Requests made up from the server's own description: none is answered by a fault of the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings

from modelserve.testing import models
from modelserve.testing.serving import ServerThread, bundle_folder

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
# What ends a model's or the server's work by being asked to.
_many = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
ADMINISTRATION = ("/unload", "/scale", "/load")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    patch = pytest.MonkeyPatch()
    patch.setenv("MODELSERVE_HOME", str(tmp_path_factory.mktemp("home")))
    folder = bundle_folder(tmp_path_factory.mktemp("models"), a=models.mlp(), b=models.two_inputs(), c=models.text())
    with ServerThread(models=Path(folder)) as running:
        yield running
    patch.undo()


def test_no_request_that_fits_the_description_finds_a_fault(server: ServerThread) -> None:
    described = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    asked: Counter[str] = Counter()

    def ask(case: schemathesis.Case) -> None:
        answer = case.call(timeout=30)
        assert answer.status_code < 500, (case.as_curl_command(), answer.text)
        assert "x-request-id" in answer.headers
        asked[case.operation.label] += 1

    for found in described.get_all_operations():
        operation = found.ok()
        if not operation.path.endswith(ADMINISTRATION):
            _many(given(case=operation.as_strategy())(ask))()
    assert len(asked) > 30
    assert min(asked.values()) > 0


def test_the_server_is_as_well_as_before(server: ServerThread) -> None:
    assert requests.get(f"{server.url}/readyz", timeout=20).status_code == 200
    assert server.server.repository.find("a").status().restarts == 0
