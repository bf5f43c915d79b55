"""Every Python block of the README, the tutorial and the how-to of local workers runs, as a newcomer would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[str]:
    found = BLOCK.findall((ROOT / document).read_text())
    assert found, f"{document} has no Python block"
    return found


def run(arguments: list[str], folder: Path, text: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        input=text,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error::DeprecationWarning:modelserve"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


class TestTheTenLines:
    """The README's example, in an empty folder."""

    def test_they_run_as_a_program(self, empty: Path) -> None:
        (empty / "program.py").write_text(blocks("README.md")[0])
        assert run(["program.py"], empty).startswith("1.0 [[")

    @pytest.mark.long
    def test_they_run_from_standard_input(self, empty: Path) -> None:
        assert run(["-"], empty, blocks("README.md")[0]).startswith("1.0 [[")

    @pytest.mark.long
    def test_they_run_in_an_interactive_shell(self, empty: Path) -> None:
        # An interactive shell needs an empty line behind each indented block.
        lines = re.sub(r"\n(?=print)", "\n\n", blocks("README.md")[0])
        assert "1.0 [[" in run(["-i", "-q"], empty, lines + "\n")

    @pytest.mark.long
    def test_they_run_in_a_notebook_cell(self, empty: Path) -> None:
        import nbformat
        from nbclient import NotebookClient

        cell = nbformat.v4.new_code_cell(blocks("README.md")[0])
        notebook = nbformat.v4.new_notebook(cells=[cell])
        NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(empty)}}).execute()
        assert "1.0 [[" in "".join(output.get("text", "") for output in notebook.cells[0].outputs)


@pytest.mark.long
def test_the_tutorial_runs_from_top_to_bottom(empty: Path) -> None:
    (empty / "tutorial.py").write_text("\n".join(blocks("docs/tutorial/first-deployment.md")))
    out = run(["tutorial.py"], empty)
    assert "decisions changed" in out
    assert "64" in out


@pytest.mark.long
def test_the_how_to_of_local_workers_runs_from_top_to_bottom(empty: Path) -> None:
    (empty / "workers.py").write_text("\n".join(blocks("docs/how-to/run-local-workers.md")))
    out = run(["workers.py"], empty).splitlines()
    assert out[0] == "True"
    assert out[1].startswith("Chose ")
    assert out[-1].startswith("DeadlineError ")
