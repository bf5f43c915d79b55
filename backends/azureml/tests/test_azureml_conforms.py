"""The Azure ML backend keeps the contract, on its rehearsal."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import httpx
import pytest
from azure.core import exceptions

from modelserve.backend.transport import HTTPX_ERRORS
from modelserve.standin.faults import Failing
from modelserve.testing.conformance import BackendConformance
from modelserve.testing.fault_matrix import FaultMatrix
from modelserve.testing.place import Place
from modelserve_azureml.errors import azure_errors
from modelserve_azureml.rehearsal.cloud import AzureRehearsal


def vendor_errors() -> list[BaseException]:
    """One of each error that azure-core and httpx define."""
    kinds = [
        kind
        for module in (exceptions, httpx)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__.startswith(("azure", "httpx"))
    ]
    return [kind.__new__(kind) for kind in kinds]


def place_of(rehearsal: AzureRehearsal) -> Place:
    faults = rehearsal.faults
    faults.clear()

    @contextlib.contextmanager
    def half_failing() -> Iterator[None]:
        faults.plan("Deployments.Put", Failing("InternalServerError", "Ordered by a test.", 500), times=100)
        yield
        faults.clear()

    @contextlib.contextmanager
    def failing_start() -> Iterator[None]:
        faults.switches.crash_at_start = True
        yield
        faults.clear()

    told = {name: str(rehearsal.options[name]) for name in rehearsal.reached_by}
    return Place(
        rehearsal.backend,
        leftovers=rehearsal.leftovers,
        half_failing=half_failing,
        failing_start=failing_start,
        vendor_errors=vendor_errors(),
        error_table={**azure_errors(), **HTTPX_ERRORS},
        deadline_s=60.0,
        elsewhere={f"MODELSERVE_TARGETS__ELSEWHERE__{name.upper()}": text for name, text in told.items()}
        | {"MODELSERVE_TARGETS__ELSEWHERE__BACKEND": "azureml"},
        kill_replica=rehearsal.kill_replica,
        faults=faults,
    )


@pytest.mark.long
class TestAzureML(BackendConformance):
    @pytest.fixture
    def place(self, rehearsal: AzureRehearsal) -> Place:
        return place_of(rehearsal)


@pytest.mark.long
@pytest.mark.timeout(600)
class TestAzureMLFaults(FaultMatrix):
    refusal = Failing("BadArgument", "Ordered by a test.", 400)

    @pytest.fixture
    def place(self, rehearsal: AzureRehearsal) -> Place:
        return place_of(rehearsal)
