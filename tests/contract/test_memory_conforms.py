"""The backend in memory keeps the contract, and the suite notices one that does not."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from modelserve.errors import OutOfMemoryError
from modelserve.testing.conformance import BackendConformance
from modelserve.testing.memory import InMemoryBackend, MemoryCloud
from modelserve.testing.place import Place


class TestMemory(BackendConformance):
    @pytest.fixture
    def place(self, memory: MemoryCloud) -> Place:
        @contextmanager
        def half_failing() -> Iterator[None]:
            memory.fail_next("deploy", OutOfMemoryError("No memory for a session."))
            yield

        return Place(
            InMemoryBackend({}),
            leftovers=lambda: [*memory.running, *memory.jobs],
            half_failing=half_failing,
            vendor_errors=(ValueError(),),
            error_table={ValueError: OutOfMemoryError},
        )
