"""What the parity tests find out about each source; `docs/reference/sources.md` is written from it.

MODELSERVE_SOURCES=FILE has every test that records something append one JSON line to FILE.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelserve.bundle import Bundle

Record = Callable[..., None]


@pytest.fixture
def record_source(request: pytest.FixtureRequest) -> Record:
    """`record_source(framework, source, bundle=None, *, limits="", refused="")`: what became of one kind of source.

    Args of the function:
        framework: The heading that it stands under, such as "PyTorch".
        source: What a user would call it, such as "LSTM, several lengths".
        bundle: The bundle made of it; its lineage tells the route, its reports the errors found.
        limits: What its users have to know; empty where nothing.
        refused: The reason, where the source is refused instead.
    """

    def record(
        framework: str, source: str, bundle: Bundle | None = None, *, limits: str = "", refused: str = ""
    ) -> None:
        target = os.environ.get("MODELSERVE_SOURCES")
        if not target:
            return
        line = {
            "framework": framework,
            "source": source,
            "limits": limits,
            "refused": refused,
            "test": request.node.nodeid.partition("::")[2],
            "lineage": [] if bundle is None else [[step.name, dict(step.settings)] for step in bundle.manifest.lineage],
            "reports": [] if bundle is None else list(bundle.manifest.reports),
        }
        with Path(target).open("a") as file:
            file.write(json.dumps(line, default=str) + "\n")

    return record
