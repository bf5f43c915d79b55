"""`modelserve predict` over a data set, in this process."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelserve.bundle import Bundle
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.memory import MemoryCloud

X = np.linspace(0, 1, 400, dtype=np.float32).reshape(100, 4)


@pytest.fixture
def linear(memory: MemoryCloud) -> Bundle:
    return models.linear()


@pytest.fixture
def orders(tmp_path: Path) -> str:
    for part in range(2):
        rows = slice(part * 50, part * 50 + 50)
        columns = {"id": np.arange(100)[rows], **{f"f{at}": X[rows, at] for at in range(4)}}
        pq.write_table(pa.table(columns), tmp_path / f"orders-{part}.parquet")
    return str(tmp_path / "orders-*.parquet")


def test_a_pattern_is_answered_into_a_folder(run, linear, orders) -> None:
    done = run("predict", linear.path, orders, "-o", "scored", "--keep", "id", "-t", "memory")
    assert done.status == 0
    assert done.out.startswith("100 rows in ")
    assert "100 of 100 rows" in done.err
    found = pq.read_table("scored")
    np.testing.assert_allclose(np.stack(found["y"].to_pylist()), Session(linear).run({"x": X})["y"], rtol=1e-6)


def test_every_option_reaches_the_run(run, linear, orders) -> None:
    options = ["--keep", "id", "--columns", "f3,f2,f1,f0", "--format", "jsonl", "--batch-rows", "7", "--outputs", "y"]
    done = run("predict", linear.path, orders, "-o", "scored", *options, "-t", "memory", "--workers", "2", "--json")
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["batch_rows"] == 7
    first = json.loads(Path("scored/part-00000.jsonl").read_text().splitlines()[0])
    np.testing.assert_allclose(first["y"], Session(linear).run({"x": X[:1, ::-1].copy()})["y"][0], rtol=1e-6)
    refused = run("predict", linear.path, orders, "-o", "scored", "--keep", "id", "-t", "memory")
    assert refused.status == 2
    assert "--restart" in refused.err
    assert run("predict", linear.path, orders, "-o", "scored", "--keep", "id", "-t", "memory", "--restart").status == 0


def test_several_files_are_one_data_set(run, linear, orders, tmp_path: Path) -> None:
    files = sorted(tmp_path.glob("orders-*.parquet"))
    assert run("predict", linear.path, *files, "-o", "scored", "--keep", "id", "-t", "memory").status == 0
    assert pq.read_table("scored").num_rows == 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["orders-*.parquet"], "-o FOLDER"),
        (["rows.csv", "--keep", "id"], "--keep asks for a data set"),
        (["-", "-o", "scored"], "standard input"),
        (["none-*.parquet", "-o", "scored"], "There is no file"),
    ],
)
def test_what_makes_no_data_set_is_said(arguments: list[str], said: str, run, linear) -> None:
    done = run("predict", linear.path, *arguments, "-t", "memory")
    assert done.status == 2
    assert said in done.err
