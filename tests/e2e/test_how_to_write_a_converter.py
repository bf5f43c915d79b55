"""The how-to's converter, installed as two text files, converts as the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from modelserve.testing.plugin import install_plugin

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-converter.md"
BLOCK = re.compile(r"^```python\n# (\S+):.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r'^\[project\.entry-points\."modelserve\.converters"\]\n(\w+) = "(.+)"$', re.MULTILINE)


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "program.py")],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def installed(folder: Path) -> Path:
    files = dict(BLOCK.findall(PAGE.read_text()))
    assert set(files) == {"slopes.py", "slopes_converter.py", "program.py"}
    (entry,) = ENTRY.findall(PAGE.read_text())
    install_plugin(folder, converters=dict([entry]))
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    done = run(installed(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    rows, verdict = done.stdout.splitlines()
    assert int(rows.removesuffix(" rows compared")) > 32
    assert verdict == "True"


def test_its_draft_would_not_be_believed_if_it_lied(tmp_path: Path) -> None:
    folder = installed(tmp_path / "site")
    converter = folder / "slopes_converter.py"
    converter.write_text(converter.read_text().replace('helper.make_node("Add"', 'helper.make_node("Sub"'))
    done = run(folder)
    assert done.returncode == 1
    assert "UnfaithfulError" in done.stderr
