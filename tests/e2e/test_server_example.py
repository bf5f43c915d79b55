"""The example of serving over HTTP runs, as a newcomer would run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_http.py"


@pytest.mark.long
def test_four_clients_have_the_same_answer() -> None:
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    answers = [re.findall(r"\d", line.partition("[")[2]) for line in done.stdout.splitlines()[:4]]
    assert answers == [["0", "1", "2"]] * 4
