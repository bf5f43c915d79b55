"""A Vertex AI endpoint in a real project. It costs money; see README.md beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelserve.backend import Backend, DeploymentSpec, open_backend
from modelserve.deployment import Deployment
from modelserve.errors import DeadlineError, InputError, ModelServeError
from modelserve.session import Session
from modelserve.testing import models

PROJECT = os.environ.get("MODELSERVE_LIVE_VERTEX_PROJECT", "")
REGION = os.environ.get("MODELSERVE_LIVE_VERTEX_REGION", "europe-west4")
ENDPOINT = os.environ.get("MODELSERVE_LIVE_VERTEX_ENDPOINT", "dedicated")
NAME = "modelserve-live"

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not PROJECT, reason="MODELSERVE_LIVE_VERTEX_PROJECT names no project."),
]


def opened_with(**options: object) -> Backend:
    told = {"project": PROJECT, "region": REGION, "endpoint": ENDPOINT, "workers": 1}
    return open_backend("vertex", {**told, **options})


@pytest.fixture
def backend() -> Iterator[Backend]:
    opened = opened_with()
    yield opened
    opened.delete(NAME)
    assert NAME not in [status.name for status in opened.list()]


def test_a_deployment_lives_and_leaves_nothing(backend: Backend) -> None:
    bundle = models.mlp()
    deployment = Deployment(backend.deploy(bundle, DeploymentSpec(NAME), on_progress=print), backend)
    names = ["label", "probabilities"]
    wanted, answers = Session(bundle).run(bundle.example(), names), deployment.predict(bundle.example(), outputs=names)
    np.testing.assert_array_equal(answers["label"], wanted["label"])
    np.testing.assert_allclose(answers["probabilities"], wanted["probabilities"], rtol=1e-5, atol=1e-6)
    deployment.scale(2)
    assert len(deployment.status().replicas) == 2
    deployment.update(models.mlp(seed=1))
    assert deployment.status().digest == models.mlp(seed=1).digest
    assert deployment.logs()
    deployment.scale(0)
    deployment.scale(1)
    assert deployment.predict(bundle.example()).shape == wanted["label"].shape
    deployment.delete()
    assert NAME not in [status.name for status in backend.list()]


def test_the_largest_request_passes(backend: Backend) -> None:
    deployment = Deployment(backend.deploy(models.linear(), DeploymentSpec(NAME)), backend)
    limit = deployment.limits.request_bytes
    assert limit is not None
    rows = np.zeros(((limit - 4096) // 16, 4), np.float32)
    try:
        assert deployment.predict(rows).shape == (len(rows), 3)
    except InputError as error:
        pytest.fail(f"Vertex AI takes less than {limit} bytes: {error}")


#: Four bytes of each row become four hundred.
WIDE = {"features": 1, "outputs": 100}


@pytest.mark.skipif(ENDPOINT not in {"dedicated", "psc"}, reason="Answers of this kind do not stream.")
def test_streamed_answers_are_the_whole_ones(backend: Backend) -> None:
    whole = Deployment(backend.deploy(models.linear(**WIDE), DeploymentSpec(NAME), on_progress=print), backend)
    streamed = Deployment(opened_with(streamed_answers=True).attach(NAME), backend)
    rows = np.random.default_rng(0).normal(size=(5_000, 1)).astype(np.float32)
    assert streamed.predict(rows).tobytes() == whole.predict(rows).tobytes()


@pytest.mark.skipif(ENDPOINT not in {"dedicated", "psc"}, reason="Answers of this kind do not stream.")
def test_a_streamed_answer_may_have_more_than_10_mb(backend: Backend) -> None:
    backend.deploy(models.linear(**WIDE), DeploymentSpec(NAME), on_progress=print).close()
    streamed = Deployment(opened_with(streamed_answers=True).attach(NAME), backend)
    rows = np.zeros((30_000, 1), np.float32)
    try:
        assert streamed.predict(rows).shape == (30_000, 100)
    except ModelServeError as error:
        pytest.fail(f"A streamed answer of 12 MB does not pass: {error!r}")


def test_a_data_set_is_answered_by_a_batch_job(backend: Backend, tmp_path: Path) -> None:
    bundle = models.linear()
    deployment = Deployment(backend.deploy(bundle, DeploymentSpec(NAME), on_progress=print), backend)
    rows = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    report = deployment.predict_dataset({"x": rows}, tmp_path / "out", format="npy", progress=print)
    assert (report.rows, report.failures, report.engine) == (5000, 0, "batch")
    found = np.concatenate(
        [np.load(path, allow_pickle=False) for path in sorted((tmp_path / "out").glob("part-*.npy"))]
    )
    np.testing.assert_allclose(found, Session(bundle).run({"x": rows})["y"], rtol=1e-4, atol=1e-5)


def test_a_deploy_is_taken_up_again_by_its_name(backend: Backend) -> None:
    with pytest.raises(DeadlineError, match="goes on by itself"):
        backend.deploy(models.linear(), DeploymentSpec(NAME, timeout_s=120), on_progress=print)
    deployment = Deployment(backend.deploy(models.linear(), DeploymentSpec(NAME), on_progress=print), backend)
    assert deployment.predict(models.linear().example()).shape == (4, 3)
