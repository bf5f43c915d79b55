"""What the tests of dying processes share."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserve.testing.pools import children, command_of, open_descriptors, wait_until


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory, where this machine lets us make one."""
    folder = Path("/sys/fs/cgroup/memory/modelserve-test")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(300 << 20))
    except OSError as error:
        pytest.skip(f"No control group can be made here: {error}")
    yield folder
    wait_until(lambda: not (folder / "cgroup.procs").read_text())
    folder.rmdir()


@pytest.fixture(params=["zygote", "spawn"])
def start(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def before() -> Iterator[set[int]]:
    """Whatever the test does, it leaves no process and no descriptor behind."""
    processes, descriptors = children(), open_descriptors()
    yield processes
    left: list[str] = []

    def nothing_left() -> bool:
        gc.collect()
        held = open_descriptors()
        left[:] = [command_of(pid) for pid in children() - processes]
        if len(held) > len(descriptors):
            left.extend(sorted(held.values()))
        return not left

    with contextlib.suppress(AssertionError):
        wait_until(nothing_left)
    assert not left, f"The test left this behind: {left}"
