"""The promise of `Auto`, tried as a user would meet it: whole searches, and rows that none of them saw."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_SOURCE = Path(__file__).parents[1] / "benchmarks" / "overruns.py"


@pytest.fixture(scope="module")
def overruns() -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location("overruns", _SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["overruns"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.timeout(600)
def test_of_a_hundred_searches_at_most_five_overrun_their_bound(overruns: ModuleType) -> None:
    found = overruns.count_overruns(100, 0.05)
    # Not by caution alone: most find something, and what they find uses up a good part of the bound.
    assert len(found.drops) >= 90
    assert sorted(found.drops)[len(found.drops) // 2] > 0.02
    assert found.count <= 5
