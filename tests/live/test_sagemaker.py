"""A SageMaker endpoint in a real account. It costs money; see README.md beside it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from modelserve.backend import Backend, DeploymentSpec, WorkPart, open_backend
from modelserve.deployment import Deployment
from modelserve.errors import InputError
from modelserve.session import Session
from modelserve.testing import models

ROLE = os.environ.get("MODELSERVE_LIVE_SAGEMAKER_ROLE", "")
MODE = os.environ.get("MODELSERVE_LIVE_SAGEMAKER_MODE", "real-time")
NAME = "modelserve-live"

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not ROLE, reason="MODELSERVE_LIVE_SAGEMAKER_ROLE names no execution role."),
]


@pytest.fixture
def backend() -> Iterator[Backend]:
    opened = open_backend("sagemaker", {"role_arn": ROLE, "mode": MODE, "workers": 1})
    yield opened
    opened.delete(NAME)
    assert NAME not in [status.name for status in opened.list()]


def test_a_deployment_lives_and_leaves_nothing(backend: Backend, tmp_path: Path) -> None:
    bundle = models.mlp()
    deployment = Deployment(backend.deploy(bundle, DeploymentSpec(NAME), on_progress=print), backend)
    wanted = Session(bundle).run(bundle.example(), ["label", "probabilities"])
    answers = deployment.predict(bundle.example(), outputs=["label", "probabilities"])
    np.testing.assert_array_equal(answers["label"], wanted["label"])
    np.testing.assert_allclose(answers["probabilities"], wanted["probabilities"], rtol=1e-5, atol=1e-6)
    if MODE == "real-time":
        deployment.scale(2)
        assert len(deployment.status().replicas) == 2
    deployment.update(models.mlp(seed=1))
    assert deployment.status().digest == models.mlp(seed=1).digest
    assert deployment.logs()
    deployment.delete()
    assert backend.list() == []


def test_a_request_of_25_mb_passes(backend: Backend) -> None:
    deployment = Deployment(backend.deploy(models.linear(), DeploymentSpec(NAME)), backend)
    limit = deployment.limits.request_bytes
    assert limit is not None
    rows = np.zeros(((limit - 4096) // 16, 4), np.float32)
    try:
        assert deployment.predict(rows).shape == (len(rows), 3)
    except InputError as error:
        pytest.fail(f"SageMaker takes less than {limit} bytes: {error}")


def test_a_data_set_is_answered_by_a_job(backend: Backend, tmp_path: Path) -> None:
    deployment = Deployment(backend.deploy(models.linear(), DeploymentSpec(NAME), on_progress=print), backend)
    x = np.random.default_rng(0).normal(size=(200_000, 4)).astype(np.float32)
    report = deployment.predict_dataset({"x": list(x)}, tmp_path / "scored")
    assert (report.rows, report.failures, report.engine) == (len(x), 0, "batch")
    parts = [pq.read_table(path)["y"].to_pylist() for path in sorted((tmp_path / "scored").glob("part-*.parquet"))]
    found = np.array([row for part in parts for row in part], np.float32)
    np.testing.assert_allclose(found, Session(models.linear()).run({"x": x})["y"], rtol=1e-4, atol=1e-5)
    # A job that is stopped while it waits for machines.
    line = b'{"$row":[0,0],"inputs":{"x":[1,2,3,4]},"outputs":["y"]}\n'
    job = deployment._endpoint.batch("stopped", [WorkPart(0, line)])
    print(job.status())
    job.delete()
    # AWS has its record, so this is another attempt.
    again = deployment._endpoint.batch("stopped", [WorkPart(0, line)])
    assert again.name != job.name
    again.delete()


def test_a_deploy_that_is_interrupted_leaves_nothing(backend: Backend) -> None:
    import _thread

    seen = threading.Event()

    def tell(line: str) -> None:
        print(line)
        if "Creating" in line and not seen.is_set() and line.startswith(NAME):
            seen.set()
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        backend.deploy(models.linear(), DeploymentSpec(NAME), on_progress=tell)
    assert NAME not in [status.name for status in backend.list()]
