"""A managed online endpoint in a real workspace. It costs money; see README.md beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from modelserve.backend import Backend, DeploymentSpec, Verdict, open_backend
from modelserve.deployment import Deployment
from modelserve.session import Session
from modelserve.testing import models

#: subscription/resource group/workspace
WORKSPACE = os.environ.get("MODELSERVE_LIVE_AZUREML_WORKSPACE", "")
NAME = "modelserve-live"

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(WORKSPACE.count("/") != 2, reason="MODELSERVE_LIVE_AZUREML_WORKSPACE names no workspace."),
]


@pytest.fixture
def backend() -> Iterator[Backend]:
    subscription, group, workspace = WORKSPACE.split("/")
    opened = open_backend(
        "azureml", {"subscription": subscription, "resource_group": group, "workspace": workspace, "workers": 1}
    )
    yield opened
    opened.delete(NAME)
    assert NAME not in [status.name for status in opened.list()]


def test_the_pre_flight_refuses_nothing(backend: Backend) -> None:
    findings = backend.preflight(models.mlp(), DeploymentSpec(NAME))
    assert [finding for finding in findings if finding.verdict is Verdict.REFUSED] == []


def test_a_deployment_lives_and_leaves_nothing(backend: Backend) -> None:
    bundle = models.mlp()
    deployment = Deployment(backend.deploy(bundle, DeploymentSpec(NAME), on_progress=print), backend)
    wanted = Session(bundle).run(bundle.example(), ["label", "probabilities"])
    answers = deployment.predict(bundle.example(), outputs=["label", "probabilities"])
    np.testing.assert_array_equal(answers["label"], wanted["label"])
    np.testing.assert_allclose(answers["probabilities"], wanted["probabilities"], rtol=1e-5, atol=1e-6)
    assert backend.attach(NAME).signature == bundle.signature
    deployment.scale(2)
    assert len(deployment.status().replicas) == 2
    deployment.scale(minimum=1, maximum=2, target_cpu=0.6)
    deployment.update(models.mlp(seed=1))
    assert deployment.status().digest == models.mlp(seed=1).digest
    assert deployment.logs()
    deployment.delete()
    assert NAME not in [status.name for status in backend.list()]


def test_a_data_set_is_answered_by_a_job(backend: Backend, tmp_path: Path) -> None:
    bundle = models.linear()
    deployment = Deployment(backend.deploy(bundle, DeploymentSpec(NAME)), backend)
    x = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    report = deployment.predict_dataset({"x": x}, tmp_path / "scored", batch_rows=100)
    assert (report.rows, report.failures, report.engine) == (1000, 0, "batch")
    found = np.concatenate(
        [np.array(pq.read_table(part)["y"].to_pylist()) for part in sorted(tmp_path.glob("*/*.parquet"))]
    )
    np.testing.assert_allclose(found, Session(bundle).run({"x": x})["y"], rtol=1e-5, atol=1e-6)


def test_a_request_as_large_as_we_allow_passes(backend: Backend) -> None:
    deployment = Deployment(backend.deploy(models.linear(), DeploymentSpec(NAME)), backend)
    limit = deployment.limits.request_bytes
    assert limit is not None
    rows = np.zeros(((limit - 4096) // 16, 4), np.float32)
    assert deployment.predict(rows).shape == (len(rows), 3)
