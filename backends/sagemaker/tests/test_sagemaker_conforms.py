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


@pytest.mark.long
class TestServerless(BackendConformance):
    @pytest.fixture
    def place(self, standin_place_in: Callable[[str], Place]) -> Place:
        return standin_place_in("serverless")


@pytest.mark.long
class TestAsynchronous(BackendConformance):
    @pytest.fixture
    def place(self, standin_place_in: Callable[[str], Place]) -> Place:
        return standin_place_in("asynchronous")


@pytest.mark.long
@pytest.mark.timeout(400)
class TestSageMakerFaults(FaultMatrix):
    @pytest.fixture
    def place(self, standin_place: Place) -> Place:
        return standin_place
