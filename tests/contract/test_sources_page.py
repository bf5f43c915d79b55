"""The page of sources is one that its generator writes, of tests that are there."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "sources.md"

specification = importlib.util.spec_from_file_location("write_sources", ROOT / "tests" / "parity" / "write_sources.py")
assert specification is not None
assert specification.loader is not None
writer: Any = importlib.util.module_from_spec(specification)
specification.loader.exec_module(writer)

OUTPUT = {
    "name": "y", "largest_absolute_error": 2e-7, "largest_relative_error": 1e-6, "is_decision": False, "changed": 0,
}  # fmt: skip
CERTIFICATE = {
    "kind": "fidelity", "rows": 40, "tolerance": {"absolute": 1e-5, "relative": 1e-4}, "outputs": [OUTPUT],
}  # fmt: skip
RECORD = {
    "framework": "Test", "source": "a | b", "limits": "", "refused": "", "test": "test_a",
    "lineage": [["convert", {"from": "test", "route": "x"}]], "reports": [CERTIFICATE],
}  # fmt: skip


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_record_is_a_row() -> None:
    (row,) = lines(writer.page([RECORD]), "| a")
    assert row == "| a &#124; b | convert (route x) | 40 | 2e-07 (1e-06) | 1e-05 + 0.0001 |  | `test_a` |"


def test_refused_sources_and_callables_have_rows_of_their_own() -> None:
    refused = {**RECORD, "source": "b", "refused": "It lies.\n" + "x" * 999, "reports": [], "lineage": []}
    callable_ = {**RECORD, "source": "c", "reports": [], "lineage": []}
    text = writer.page([refused, callable_, RECORD])
    assert len(lines(text, "| b")[0]) < 400
    assert "| as it is, in Python |" in lines(text, "| c")[0]
    assert text.count("## Test") == 1


def test_records_of_some_sources_leave_the_rows_of_all_others_as_they_were() -> None:
    text = writer.page([RECORD, {**RECORD, "source": "b", "refused": "It lies."}])
    assert writer.page([], text) == text
    added = writer.page([{**RECORD, "source": "b"}, {**RECORD, "framework": "Other"}], text)
    assert lines(added, "| a") == [*lines(text, "| a")] * 2
    assert len(lines(added, "| b")) == 1
    assert "It lies." not in added


def test_the_committed_page_is_one_of_the_generator() -> None:
    text = PAGE.read_text()
    assert text.startswith(writer.INTRODUCTION)
    headers = {f"| {' | '.join(columns)} |" for columns in (writer.COLUMNS, writer.REFUSED_COLUMNS)}
    assert set(lines(text, "| source")) <= headers
    assert lines(text, "## ")


def test_every_test_that_the_committed_page_names_is_there() -> None:
    known = {
        name
        for path in (ROOT / "tests" / "parity").glob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = {re.search(r"(test_\w+)", cell) for cell in re.findall(r"`([^`]*test_[^`]*)` \|$", PAGE.read_text(), re.M)}
    assert named
    assert {found[1] for found in named if found} <= known


@pytest.mark.parametrize("framework", ["ONNX", "Python"])
def test_what_is_recorded_in_the_default_suite_is_on_the_page(framework: str) -> None:
    assert f"## {framework}" in PAGE.read_text()
