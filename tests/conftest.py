"""What every room uses: a home and a working directory of the test's own, and a backend in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserve.testing.memory import InMemoryBackend, MemoryCloud
from modelserve.testing.plugin import install_plugin


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's files, or those of another test."""
    monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MODELSERVE_TARGET", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryCloud]:
    """The backend "memory", installed, over a cloud of the test's own."""
    monkeypatch.syspath_prepend(
        install_plugin(tmp_path / "site", backends={"memory": "modelserve.testing.memory:InMemoryBackend"})
    )
    cloud = MemoryCloud()
    monkeypatch.setattr(InMemoryBackend, "cloud", cloud)
    yield cloud
    cloud.gate.set()
    cloud.clear()
