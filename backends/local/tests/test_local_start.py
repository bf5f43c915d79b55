"""What is asked of the start: no longer than so, and nothing left when it took longer."""

from __future__ import annotations

import pytest

from modelserve import Model
from modelserve.errors import WorkerStartError
from modelserve.testing import models
from modelserve_local import LocalBackend


def test_workers_that_are_not_ready_in_time_are_taken_down_again() -> None:
    with pytest.raises(WorkerStartError, match=r"after 0\.0001 s"):
        Model(models.linear()).serve("local", name="late", timeout_s=0.0001)
    assert LocalBackend({}).list() == []
    with Model(models.linear()).serve("local", name="late", timeout_s=60) as deployment:
        assert deployment.status().state.value == "ready"


def test_what_is_ephemeral_ends_with_its_block() -> None:
    with Model(models.linear()).serve("local", name="trial", ephemeral=True):
        assert [status.name for status in LocalBackend({}).list()] == ["trial"]
    assert LocalBackend({}).list() == []
