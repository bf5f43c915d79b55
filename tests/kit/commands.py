"""The command line in this process."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from modelserve.cli import main


class Done(NamedTuple):
    """A command that has ended: its exit status, and what it wrote to both streams."""

    status: int
    out: str
    err: str

    @property
    def content(self) -> Any:
        """What it wrote, as JSON."""
        return json.loads(self.out)


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """Run `modelserve` with these arguments, to its end."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return Done(int(ended.value.code or 0), printed.out, printed.err)
