"""The Vertex AI backend keeps the contract, against its stand-in over the network."""

from __future__ import annotations

import inspect
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
    return [kind.__new__(kind) for kind in sorted(kinds, key=str) if kind.__module__.startswith("google")]


class TestVertex(BackendConformance):
    @pytest.fixture
    def place(self, rehearsal: VertexRehearsal) -> Iterator[Place]:
        @contextmanager
        def half_failing() -> Iterator[None]:
            rehearsal.cloud.faults.plan("DeployModel", Failing("FAILED_PRECONDITION"))
            yield

        yield Place(
            rehearsal.backend,
            leftovers=rehearsal.leftovers,
            half_failing=half_failing,
            vendor_errors=vendor_errors(),
            error_table=VENDOR_ERRORS,
            deadline_s=60.0,
        )
