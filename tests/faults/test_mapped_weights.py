"""Workers that are not forked from one that has the model map one copy of its weights, or say why they do not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelserve import wire
from modelserve.bundle import Bundle
from modelserve.home import home
from modelserve.runtime import PoolSettings, WorkerPool
from modelserve.runtime.mapping import mapped_model
from modelserve.session import Session
from modelserve.tensors import Array
from modelserve.testing import models

X = np.ones((3, 2048), np.float32)


@pytest.fixture
def wide() -> Bundle:
    """10 MB of weights."""
    return models.linear(2048, 1200)


@pytest.fixture(params=[PoolSettings(threads=2), PoolSettings(start="spawn")], ids=["threads", "spawn"])
def pool(request: pytest.FixtureRequest, wide: Bundle) -> Iterator[WorkerPool]:
    pool = WorkerPool(wide, workers=2, settings=request.param)
    yield pool
    pool.close()


def predict(pool: WorkerPool) -> Array:
    reply = pool.submit(wire.encode_request({"x": X}), len(X)).result()
    return wire.decode(wire.reply_layout(reply.header), reply.body)["y"]


def mapped_files(pool: WorkerPool) -> list[bool]:
    """For each worker, whether it maps the weights that were written once."""
    maps = [Path(f"/proc/{worker.pid}/maps").read_text() for worker in pool.status().workers]
    return [str(home() / "mapped") in content for content in maps]


def test_every_worker_maps_the_same_file_and_answers_as_the_bundle_does(pool: WorkerPool, wide: Bundle) -> None:
    assert mapped_files(pool) == [True, True]
    assert np.array_equal(predict(pool), Session(wide).run({"x": X})["y"])


def test_workers_that_are_forked_write_nothing(wide: Bundle) -> None:
    pool = WorkerPool(wide, workers=1)
    try:
        assert predict(pool).shape == (3, 1200)
        assert not (home() / "mapped").exists()
    finally:
        pool.close()


def test_a_damaged_copy_is_not_used_and_the_worker_says_so(wide: Bundle) -> None:
    model = mapped_model(wide)
    assert model is not None
    model.write_bytes(b"damaged")
    pool = WorkerPool(wide, workers=1, settings=PoolSettings(threads=2))
    try:
        assert np.array_equal(predict(pool), Session(wide).run({"x": X})["y"])
        assert any("keeps a copy of the weights" in line for line in pool.logs())
    finally:
        pool.close()


def test_where_it_cannot_be_written_workers_load_the_bundle(wide: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    (home() / "mapped").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        pool = WorkerPool(wide, workers=1, settings=PoolSettings(threads=2))
    try:
        assert np.array_equal(predict(pool), Session(wide).run({"x": X})["y"])
        assert "could not be written once" in caplog.text
    finally:
        pool.close()


def test_two_who_write_it_at_once_leave_one(wide: Bundle) -> None:
    found: list[Path | None] = []
    makers = [threading.Thread(target=lambda: found.append(mapped_model(wide))) for _ in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert found[0] == found[1]
    assert found[0] is not None
    assert [path.name for path in (home() / "mapped").iterdir()] == [found[0].parent.name]
