"""The SageMaker backend keeps the contract, by boto3 and over the network, against its stand-in."""

from __future__ import annotations

import pytest

from modelserve.testing.conformance import BackendConformance
from modelserve.testing.fault_matrix import FaultMatrix


@pytest.mark.long
class TestSageMaker(BackendConformance):
    pass


@pytest.mark.long
@pytest.mark.timeout(400)
class TestSageMakerFaults(FaultMatrix):
    pass
