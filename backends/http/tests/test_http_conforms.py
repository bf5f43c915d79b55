"""The HTTP backend keeps the contract, against our own server over the network."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modelserve.testing.conformance import BackendConformance
from modelserve.testing.place import Place
from modelserve.testing.serving import ServerThread
from modelserve_http import HttpBackend
from modelserve_http.errors import VENDOR_ERRORS


def vendor_errors() -> list[BaseException]:
    """One of each error that httpx defines."""
    kinds = [kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)]
    return [kind.__new__(kind) for kind in kinds]


class TestHttp(BackendConformance):
    @pytest.fixture
    def place(self, tmp_path: Path, own_home: None) -> Iterator[Place]:
        folder = tmp_path / "models"
        folder.mkdir()
        with ServerThread(models=folder, workers=1) as server:
            yield Place(
                HttpBackend({"url": server.url, "folder": folder}),
                leftovers=lambda: [path.name for path in folder.iterdir()],
                vendor_errors=vendor_errors(),
                error_table=VENDOR_ERRORS,
            )
