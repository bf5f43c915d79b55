"""What every room uses: a home and a working directory of the test's own, and a backend in this process."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before they are imported, so that a failing assert in them shows its values.
pytest.register_assert_rewrite("modelserve.testing")

from commands import Done, run_command  # noqa: E402

from modelserve.testing.memory import InMemoryBackend, MemoryCloud  # noqa: E402
from modelserve.testing.plugin import install_plugin  # noqa: E402

with contextlib.suppress(ImportError):
    # PyTorch's builds for CUDA bring Triton, which ends the process when it is loaded behind TensorFlow.
    import triton  # noqa: F401

# The machines that run this are shared and slow at times: time is no property of the code here.
settings.register_profile(
    "modelserve", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("modelserve")


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


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], memory: MemoryCloud) -> Callable[..., Done]:
    """Runs `modelserve` with some arguments; the target "memory" is there."""
    return partial(run_command, capsys)
