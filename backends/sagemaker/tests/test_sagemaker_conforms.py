"""The SageMaker backend keeps the contract, by boto3 and over the network, against its stand-in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelserve.testing.conformance import BackendConformance
from modelserve.testing.fault_matrix import FaultMatrix
from modelserve.testing.place import Place


@pytest.mark.long
class TestSageMaker(BackendConformance):
    @pytest.fixture
    def place(self, standin_place: Place) -> Place:
        return standin_place


class InAnotherMode(BackendConformance):
    """Batch jobs ask no endpoint: of what they are, one is enough in each of the other modes."""

    test_every_kind_of_value_comes_back = None  # type: ignore[assignment]
    test_a_row_that_fails_costs_no_other = None  # type: ignore[assignment]
    test_a_job_goes_on_without_its_caller_and_is_found_again = None  # type: ignore[assignment]
    test_a_stopped_run_goes_on_with_its_job = None  # type: ignore[assignment]
    test_work_that_cannot_be_sent_leaves_nothing = None  # type: ignore[assignment]


@pytest.mark.long
class TestServerless(InAnotherMode):
    @pytest.fixture
    def place(self, standin_place_in: Callable[[str], Place]) -> Place:
        return standin_place_in("serverless")


@pytest.mark.long
class TestAsynchronous(InAnotherMode):
    @pytest.fixture
    def place(self, standin_place_in: Callable[[str], Place]) -> Place:
        return standin_place_in("asynchronous")


@pytest.mark.long
@pytest.mark.timeout(400)
class TestSageMakerFaults(FaultMatrix):
    @pytest.fixture
    def place(self, standin_place: Place) -> Place:
        return standin_place
