"""The how-to about networks runs, section by section."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "convert-a-network.md"
SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"# (\w+\[.*\])$", re.MULTILINE)


def program(*sections: str) -> str:
    found = {title: "\n".join(BLOCK.findall(body)) for title, body in SECTION.findall(DOCUMENT.read_text())}
    return "\n".join(found[title] for title in sections)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "sections",
    [
        pytest.param(("PyTorch",), id="PyTorch", marks=pytest.mark.long),
        pytest.param(("PyTorch", "Hugging Face transformers"), id="transformers", marks=pytest.mark.long),
        pytest.param(("Keras and TensorFlow",), id="Keras", marks=pytest.mark.long),
        pytest.param(("JAX and Flax",), id="JAX", marks=pytest.mark.long),
    ],
)
def test_the_lines_do_what_their_comments_say(sections: tuple[str, ...], tmp_path: Path) -> None:
    code = program(*sections)
    (tmp_path / "program.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == SHOWN.findall(code)
    assert SHOWN.findall(code)
