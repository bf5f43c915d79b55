"""The local backend keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelserve.testing.conformance import BackendConformance
from modelserve.testing.place import Place
from modelserve_local import LocalBackend


class TestLocal(BackendConformance):
    @pytest.fixture
    def place(self) -> Iterator[Place]:
        backend = LocalBackend({"workers": 2})
        yield Place(backend, leftovers=lambda: [status.name for status in backend.list()])
        for status in backend.list():
            LocalBackend._running[status.name].pool.close(drain_s=0)
        LocalBackend._running.clear()
