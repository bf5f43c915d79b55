"""An application that knows nothing of a cloud runs at the stand-in by its configuration alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCAL = '[targets.prod]\nbackend = "local"\nworkers = 1\n'


@contextmanager
def standin() -> Iterator[str]:
    """A stand-in in a process of its own; the configuration that it prints."""
    command = [sys.executable, "-m", "modelserve_vertex.rehearsal", "--project", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield "".join(iter(process.stdout.readline, "\n"))
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def run_application(configuration: str) -> str:
    Path("modelserve.toml").write_text(configuration)
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "anywhere.py")],
        env=os.environ, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(240)
def test_an_application_runs_there_by_its_configuration_alone() -> None:
    here = run_application(LOCAL)
    with standin() as target:
        there = run_application(target + "workers = 1\n")
    print(f"local:\n{here}\nvertex:\n{there}")
    assert here == there
    assert "replicas 2" in there
