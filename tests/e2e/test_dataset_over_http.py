"""The same call through a server: the bits are those of local workers, because each request is run alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import modelserve as ms
from modelserve.testing import models
from modelserve.testing.serving import ServerThread, bundle_folder


def test_a_data_set_through_a_server_is_that_of_local_workers(tmp_path: Path) -> None:
    bundle = models.mlp()
    x = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    table = pa.table({"id": np.arange(len(x)), "x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 8)})
    options = {"keep": ["id"], "outputs": ["label", "probabilities"], "batch_rows": 48}
    with ms.Model(bundle).serve("local", workers=1, name="local") as deployment:
        deployment.predict_dataset(table, "local", **options)
    with ServerThread(models=bundle_folder(tmp_path / "models", mlp=bundle)) as server:
        report = ms.attach(f"{server.url}/v2/models/mlp").predict_dataset(table, "http", **options)
    assert (report.rows, report.failures) == (3000, 0)
    assert pq.read_table("http").equals(pq.read_table("local"))
