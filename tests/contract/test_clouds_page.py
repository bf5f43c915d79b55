"""The page of places is the one that its generator writes from what the backends declare."""

import importlib.util
from pathlib import Path
from typing import Any

from modelserve.backend import Capability, Support
from modelserve.testing.memory import InMemoryBackend

specification = importlib.util.spec_from_file_location("write_clouds", Path(__file__).parent / "write_clouds.py")
assert specification is not None
assert specification.loader is not None
writer: Any = importlib.util.module_from_spec(specification)
specification.loader.exec_module(writer)


def test_it_is_current() -> None:
    assert writer.PAGE.read_text() == writer.page(writer.installed()), "Run: make clouds"


def test_each_capability_is_told_as_it_is_declared() -> None:
    text = writer.page([InMemoryBackend])
    shown = {Support.FULL: "yes", Support.NOT_IMPLEMENTED: "not implemented", Support.IMPOSSIBLE: "impossible"}
    for capability in Capability:
        declared = InMemoryBackend.support.get(capability, Support.NOT_IMPLEMENTED)
        assert f"| {capability.value} | {shown[declared]} |" in text
