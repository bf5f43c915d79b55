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
    """What asks the endpoint; batch jobs, and how a deployment begins and ends, have nothing to do with pieces."""

    test_a_data_set_is_answered_by_the_batch_service = None  # type: ignore[assignment]
    test_every_kind_of_value_comes_back = None  # type: ignore[assignment]
    test_a_row_that_fails_costs_no_other = None  # type: ignore[assignment]
    test_a_job_goes_on_without_its_caller_and_is_found_again = None  # type: ignore[assignment]
    test_a_stopped_run_goes_on_with_its_job = None  # type: ignore[assignment]
    test_delete_takes_jobs_along = None  # type: ignore[assignment]
    test_work_that_cannot_be_sent_leaves_nothing = None  # type: ignore[assignment]
    test_logs_are_lines = None  # type: ignore[assignment]
    test_status_names_the_model_that_runs = None  # type: ignore[assignment]
    test_a_second_deploy_of_the_same_model_changes_nothing = None  # type: ignore[assignment]
    test_a_second_deploy_of_another_model_updates = None  # type: ignore[assignment]
    test_delete_leaves_nothing_and_is_quiet_twice = None  # type: ignore[assignment]
    test_delete_by_name_removes_what_another_program_made = None  # type: ignore[assignment]
    test_a_deploy_that_fails_half_way_leaves_nothing = None  # type: ignore[assignment]
    test_what_never_becomes_ready_is_told_and_leaves_nothing = None  # type: ignore[assignment]

    @pytest.fixture
    def options(self, options: dict[str, object]) -> dict[str, object]:
        return {**options, "streamed_answers": True}

    @pytest.fixture
    def place(self, rehearsal: VertexRehearsal) -> Iterator[Place]:
        yield place_of(rehearsal)
        assert "RawPredict" not in rehearsal.cloud.faults.calls
