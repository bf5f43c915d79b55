"""An application that knows nothing of a cloud runs at the stand-in by its configuration alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def rehearsed(configuration: str) -> tuple[int, dict[str, Any]]:
    Path("modelserve.toml").write_text(configuration)
    command = [sys.executable, "-m", "modelserve", "rehearse", "prod", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    return done.returncode, json.loads(done.stdout)


TARGET = '[targets.prod]\nbackend = "vertex"\nproject = "demo"\nregion = "europe-west4"\nworkers = 1\n'


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_target_is_rehearsed_from_the_command_line() -> None:
    status, report = rehearsed(TARGET)
    assert (status, report["passed"], report["counts"]["refused"]) == (0, True, 0)
    assert report["counts"]["passed"] >= 18
    assert {"deploy", "answers", "scale", "update", "failure", "logs", "delete"} <= {
        s["name"] for s in report["stages"]
    }


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_target_that_would_be_refused_says_why_and_fails() -> None:
    status, report = rehearsed(TARGET + 'machine_type = "ml.m5.large"\n')
    assert (status, report["passed"]) == (1, False)
    refused = [one for stage in report["stages"] for one in stage["findings"] if one["verdict"] == "refused"]
    assert "machine_type: 'ml.m5.large' is not supported" in refused[0]["text"]


@pytest.mark.long
@pytest.mark.timeout(240)
def test_an_application_runs_there_by_its_configuration_alone() -> None:
    here = run_application(LOCAL)
    with standin() as target:
        there = run_application(target + "workers = 1\n")
    print(f"local:\n{here}\nvertex:\n{there}")
    assert here == there
    assert "replicas 2" in there
