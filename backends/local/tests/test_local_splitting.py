"""One large request is answered by all workers, in row order, where that was found to be sooner."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import modelserve as ms
from modelserve.session import Session
from modelserve.testing import models


def runs(deployment: ms.Deployment) -> list[int]:
    return [replica.details["runs"] for replica in deployment.status().replicas]


def split_rows(deployment: ms.Deployment) -> int | None:
    return deployment._endpoint.limits.split_rows


def wait_until_known(deployment: ms.Deployment) -> int:
    end = time.monotonic() + 10
    while (rows := split_rows(deployment)) is None:
        assert time.monotonic() < end, "The workers never said what a row costs."
        threading.Event().wait(0.02)
    return rows


def test_a_large_array_uses_every_worker_and_keeps_its_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path))
    monkeypatch.setattr("modelserve.runtime.roster.usable_cores", lambda: 2)
    bundle = models.slow()
    with ms.Model(bundle).serve(workers=2) as deployment:
        rows = max(64, 2 * wait_until_known(deployment))
        x = np.random.default_rng(0).normal(size=(rows, 128)).astype(np.float32)
        before = runs(deployment)
        answer = deployment.predict(x)
        assert all(now > then for now, then in zip(runs(deployment), before, strict=True))
    np.testing.assert_allclose(answer, Session(bundle).run({"x": x})["y"], rtol=1e-4, atol=1e-5)


def test_one_worker_or_rows_that_depend_on_each_other_are_never_split(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path))
    with ms.Model(models.slow()).serve(workers=1) as deployment:
        deployment.predict(np.zeros((64, 128), np.float32))
        assert split_rows(deployment) is None
    with ms.Model(models.joint()).serve(workers=2) as deployment:
        deployment.predict(np.zeros((64, 2), np.float32))
        assert split_rows(deployment) is None
