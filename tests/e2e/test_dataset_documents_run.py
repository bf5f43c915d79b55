"""The how-to and the example of data sets run, as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(program: str | Path, folder: Path) -> str:
    arguments = ["-c", program] if isinstance(program, str) else [str(program)]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ}, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(150)
@pytest.mark.long
def test_the_how_to_runs_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "predict-over-a-data-set.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    said = run("\n".join(blocks), tmp_path)
    assert said.startswith("5,000 rows in ")
    assert "lacks" in said or "no column(s) 'sum'" in said
    assert "'free'" in said
    assert said.rstrip().endswith("5000")


@pytest.mark.timeout(150)
@pytest.mark.long
def test_the_example_runs(tmp_path: Path) -> None:
    said = run(ROOT / "examples" / "data_set.py", tmp_path)
    assert "stopped, with" in said
    assert "200,000 rows" in said
    assert said.rstrip().endswith("1.0")
