"""The command line as people run it: a process of its own, on the local backend."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from modelserve.bundle import Bundle
from modelserve.session import Session
from modelserve.testing import models

COMMAND = [sys.executable, "-m", "modelserve"]


@pytest.fixture
def bundle() -> Bundle:
    return models.linear()


def rows(count: int) -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    np.save("rows.npy", made)
    return made


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def test_predict_answers_on_the_local_backend_and_prints_nothing_else(bundle: Bundle) -> None:
    given = rows(100)
    done = run("predict", bundle.path, "rows.npy", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.array(json.loads(done.stdout), np.float32), Session(bundle).run({"x": given})["y"])


def test_bad_input_is_one_line_and_no_traceback(bundle: Bundle) -> None:
    np.save("rows.npy", np.ones((2, 5)))
    done = run("predict", bundle.path, "rows.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: Input 'x' must be float32[batch, 4], got shape (2, 5)")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_reader_that_leaves_early_costs_no_traceback(bundle: Bundle) -> None:
    rows(50_000)
    with started("predict", bundle.path, "rows.npy") as process:
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(30), process.stderr.read()) == (1, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_ends_it_with_130_and_no_traceback(bundle: Bundle) -> None:
    slow = models.slow(5_000)
    np.save("rows.npy", np.ones((20_000, 128), np.float32))
    with started("predict", slow.path, "rows.npy", "-o", "answers.npy") as process:
        wait_for_children(process)
        process.send_signal(signal.SIGINT)
        assert (process.wait(30), process.stderr.read()) == (130, b"")
    assert not Path("answers.npy").exists()


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, *map(str, arguments)], **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_children(process: subprocess.Popen[bytes]) -> None:
    """Until the workers have started, by which time the command is under way."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not listed.exists():
        pytest.skip("no list of child processes on this platform")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None and not listed.read_text().strip():
        pass
