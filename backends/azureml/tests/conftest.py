"""What the tests of this backend share: one rehearsed Azure for all tests of a file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelserve_azureml import AzureMLBackend
from modelserve_azureml.rehearsal.cloud import AzureRehearsal

OPTIONS: dict[str, Any] = {
    "subscription": "00000000-0000-0000-0000-000000000001",
    "resource_group": "models",
    "workspace": "rehearsed",
    "workers": 1,
}


@pytest.fixture(scope="session", autouse=True)
def quiet_sdk() -> None:
    with warnings.catch_warnings():
        # azure-ai-ml is built on marshmallow 3, which warns of its own fourth version while it is imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        import azure.ai.ml.entities  # noqa: F401


@pytest.fixture(scope="session")
def options() -> dict[str, Any]:
    return dict(OPTIONS)


@pytest.fixture(scope="module")
def rehearsal() -> Iterator[AzureRehearsal]:
    with AzureMLBackend(OPTIONS).rehearsal() as found:
        assert isinstance(found, AzureRehearsal)
        yield found
        assert found.proxy.refused == [], "Somebody asked for a host that is not Azure's."


@pytest.fixture
def azure(rehearsal: AzureRehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureRehearsal]:
    """The rehearsed Azure with nothing wrong and nothing in it, before and after."""
    monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path / "modelserve-home"))
    rehearsal.faults.clear()
    yield rehearsal
    rehearsal.faults.clear()
    rehearsal.manager.endpoints.taken.clear()
    rehearsal.manager.account.unregistered.clear()
    rehearsal.manager.account.actions = ["*"]
    rehearsal.manager.account.limit = 100
    rehearsal.manager.account.is_keyless = False
    rehearsal.door.is_private = False
    for status in rehearsal.backend.list():
        rehearsal.backend.delete(status.name)
    assert rehearsal.leftovers() == []
