"""Memory that runs out: for a callable, for a worker, for one worker more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelserve import wire
from modelserve.errors import (
    OutOfMemoryError,
    PoisonedRequestError,
)
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.testing import models
from modelserve.testing.pools import live, predict


@pytest.mark.usefixtures("before")
class TestMemory:
    def test_a_callable_without_memory_fails_its_request_only(self) -> None:
        def hungry(tensors: Any) -> Any:
            if (tensors["x"] < 0).any():
                raise MemoryError("Unable to allocate 8 TiB")
            return {"y": tensors["x"]}

        pool = WorkerPool(live(hungry, rows_independent=True), workers=1)
        try:
            good = np.ones((1, 2), np.float32)
            pending = [pool.submit(wire.encode_request({"x": x}), 1) for x in (good, -good, good)]
            with pytest.raises(OutOfMemoryError, match="fewer rows"):
                pending[1].result()
            assert [pending[at].result().body.nbytes for at in (0, 2)] == [8, 8]
            assert pool.status().restarts == 0
        finally:
            pool.close()

    def test_a_worker_that_the_system_ends_for_want_of_memory_is_named_so(self, small_group: Path) -> None:
        def grow(tensors: Any, group: str = str(small_group)) -> Any:
            if (tensors["x"] < 0).any():
                Path(group, "cgroup.procs").write_text(str(os.getpid()))
                np.ones(1 << 30, np.uint8)
            return {"y": tensors["x"]}

        pool = WorkerPool(live(grow), workers=1)
        try:
            with pytest.raises(PoisonedRequestError, match="SIGKILL because the machine, or its control group"):
                predict(pool, -np.ones((1, 2), np.float32), 60)
            assert predict(pool, np.ones((1, 2), np.float32)).shape == (1, 2)
        finally:
            pool.close()

    def test_no_memory_for_another_worker_is_said_and_the_others_go_on(
        self, start: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = WorkerPool(models.linear(), workers=1, settings=PoolSettings(start=start))
        try:
            launcher = type(pool._roster.current._launcher)

            def refuse(*_: Any) -> Any:
                raise OutOfMemoryError("No worker process could be started: no memory.")

            with monkeypatch.context() as patch:
                patch.setattr(launcher, "start", refuse)
                with pytest.raises(OutOfMemoryError, match="no memory"):
                    pool.scale(3)
            assert pool.status().wanted == 1
            assert predict(pool, np.ones((1, 4), np.float32)).shape == (1, 3)
            pool.scale(2)
            assert pool.status().ready == 2
        finally:
            pool.close()
