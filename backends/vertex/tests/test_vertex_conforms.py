"""The Vertex AI backend keeps the contract, against its stand-in over the network."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager

import google.auth.exceptions
import google.cloud.storage.exceptions
import pytest
from google.api_core import exceptions as google_errors

from modelserve.standin.faults import Failing
from modelserve.testing.conformance import BackendConformance
from modelserve.testing.place import Place
from modelserve_vertex.errors import VENDOR_ERRORS
from modelserve_vertex.rehearsal import VertexRehearsal


def vendor_errors() -> list[BaseException]:
    """One of each error that Google's libraries define."""
    rooms = (google_errors, google.auth.exceptions, google.cloud.storage.exceptions)
    kinds = {
        kind
        for room in rooms
        for _, kind in inspect.getmembers(room, inspect.isclass)
        if issubclass(kind, Exception) and not issubclass(kind, Warning)
    }
    ours = [kind for kind in sorted(kinds, key=str) if kind.__module__.startswith("google")]
    return [kind("said by the vendor") if kind is not google_errors.RetryError else kind("late", None) for kind in ours]


def elsewhere(rehearsal: VertexRehearsal) -> dict[str, str]:
    """The variables by which another process has the stand-in as its target."""
    told = {name: value for name, value in rehearsal.options.items() if value is not None}
    prefix = "MODELSERVE_TARGETS__ELSEWHERE__"
    return {f"{prefix}BACKEND": "vertex"} | {prefix + name.upper(): json.dumps(told[name]) for name in told}


def place_of(rehearsal: VertexRehearsal) -> Place:
    @contextmanager
    def half_failing() -> Iterator[None]:
        rehearsal.cloud.faults.plan("DeployModel", Failing("FAILED_PRECONDITION"))
        yield

    @contextmanager
    def failing_start() -> Iterator[None]:
        rehearsal.cloud.faults.switches.crash_at_start = True
        yield
        rehearsal.cloud.faults.clear()

    return Place(
        rehearsal.backend,
        leftovers=rehearsal.leftovers,
        half_failing=half_failing,
        vendor_errors=vendor_errors(),
        error_table=VENDOR_ERRORS,
        deadline_s=60.0,
        elsewhere=elsewhere(rehearsal),
        kill_replica=rehearsal.kill_replica,
        failing_start=failing_start,
        faults=rehearsal.cloud.faults,
    )


@pytest.mark.long
class TestVertex(BackendConformance):
    @pytest.fixture
    def place(self, rehearsal: VertexRehearsal) -> Place:
        return place_of(rehearsal)


@pytest.mark.long
class TestStreamedAnswers(BackendConformance):
    """Answers in pieces are the same answers; batch jobs ask no endpoint."""

    test_every_kind_of_value_comes_back = None  # type: ignore[assignment]
    test_a_row_that_fails_costs_no_other = None  # type: ignore[assignment]
    test_a_job_goes_on_without_its_caller_and_is_found_again = None  # type: ignore[assignment]
    test_a_stopped_run_goes_on_with_its_job = None  # type: ignore[assignment]
    test_work_that_cannot_be_sent_leaves_nothing = None  # type: ignore[assignment]

    @pytest.fixture
    def options(self, options: dict[str, object]) -> dict[str, object]:
        return {**options, "streamed_answers": True}

    @pytest.fixture
    def place(self, rehearsal: VertexRehearsal) -> Iterator[Place]:
        yield place_of(rehearsal)
        assert "RawPredict" not in rehearsal.cloud.faults.calls
