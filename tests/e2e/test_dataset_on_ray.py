"""The same call on the machines of a Ray cluster: two of them, each a Ray node of its own on this machine."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import modelserve as ms
from modelserve import Deployment, errors
from modelserve.dataset import batch_size, folder
from modelserve.testing import models

# Ray's own threads and sockets are collected when its processes end, and it warns of its own defaults to come.
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(280),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = 4000
_TRIES = 5


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    several = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    several.add_node(num_cpus=1)
    ray.init(address=several.address, log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()
    several.shutdown()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    columns = {f"f{at}": x[:, at] for at in range(8)}
    pq.write_table(pa.table({"id": np.arange(ROWS), **columns}), tmp_path / "rows.parquet", row_group_size=700)
    return tmp_path / "rows.parquet"


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    monkeypatch.setattr(batch_size, "PART_BYTES", 16 << 10)
    with ms.Model(models.mlp()).serve("local", workers=1, name="on-ray") as found:
        yield found


def content(into: str) -> dict[str, str]:
    files = [path for path in Path(into).iterdir() if path.name != folder.REPORT]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(deployment: Deployment, source: Any, into: str, **options: Any) -> Any:
    outputs = ["label", "probabilities"]
    return deployment.predict_dataset(source, into, keep=["id"], outputs=outputs, batch_rows=64, **options)


def test_several_machines_make_the_bytes_that_one_makes(cluster, deployment, source) -> None:
    nodes = [node for node in cluster.nodes() if node["Alive"]]
    assert len(nodes) == 2
    run(deployment, source, "local")
    for _ in range(_TRIES):  # which machine gets a part is for Ray to say; a busy one may be left out
        report = run(deployment, source, "ray", engine="ray", restart=True)
        assert (report.rows, report.failures) == (ROWS, 0)
        if report.machines == len(nodes):
            break
    assert report.machines == len(nodes)
    assert report.parts > 4
    assert content("ray") == content("local")


def test_a_run_goes_on_with_either_engine(cluster, deployment, source) -> None:
    run(deployment, source, "whole")
    run(deployment, source, "out", engine="ray")
    for name in ("part-00001.parquet", "part-00004.parquet", "part-00005.parquet"):
        Path("out", name).unlink()
    assert 0 < run(deployment, source, "out", engine="ray").resumed_rows < ROWS
    assert content("out") == content("whole")
    Path("out/part-00002.parquet").unlink()
    assert run(deployment, source, "out", engine="local").resumed_rows < ROWS
    assert content("out") == content("whole")


def test_rows_that_fail_are_told_by_the_machine_that_met_them(cluster, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(batch_size, "PART_BYTES", 1 << 10)
    index = np.arange(1000) % 4
    index[[17, 700]] = 99
    with ms.Model(models.picky()).serve("local", workers=1, name="picky-on-ray") as deployment:
        np.savez(tmp_path / "rows.npz", index=index)
        for engine in ("local", "ray"):
            report = deployment.predict_dataset(tmp_path / "rows.npz", engine, engine=engine, batch_rows=32)
            assert report.failures == 2
        assert content("ray") == content("local")
        with pytest.raises(errors.TooManyFailuresError, match="row 17"):
            deployment.predict_dataset(tmp_path / "rows.npz", "few", engine="ray", batch_rows=32, max_failures=0)


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


def test_what_other_machines_cannot_do_is_refused_before_anything_is_made(cluster, deployment, source) -> None:
    with pytest.raises(errors.NotSupportedError, match="does not say how many"):
        run(deployment, iter(pq.read_table(source).to_batches()), "out", engine="ray")
    with (
        ms.Model(double, example=np.ones((4, 2))).serve("local", workers=1, name="live") as live,
        pytest.raises(errors.NotSupportedError, match="no bundle here"),
    ):
        live.predict_dataset(np.ones((4, 2)), "out", engine="ray", batch_rows=2)
    assert not Path("out").exists()
