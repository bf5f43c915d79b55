"""The blocks of the how-to run, as its reader would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve-images-and-functions.md"
IMAGES, FUNCTION, SIGNATURE = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def printed(program: str, folder: Path) -> str:
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-W", "ignore", "program.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_images_of_any_size_are_answered(tmp_path: Path) -> None:
    assert printed(IMAGES, tmp_path).splitlines() == ["uint8[batch, height, width, 3]", "(2,)"]


@pytest.mark.long
def test_a_function_is_served_and_says_why_it_is_not_portable(tmp_path: Path) -> None:
    out = printed(FUNCTION, tmp_path)
    assert "no portable form" in out
    assert out.splitlines()[-1] == "[1.73205081 1.73205081 1.73205081 1.73205081]"


@pytest.mark.long
def test_rows_are_made_up_where_only_a_signature_is_given(tmp_path: Path) -> None:
    assert printed(SIGNATURE, tmp_path).splitlines() == ["float32[batch, 8] -> float32[batch, 2]"]
