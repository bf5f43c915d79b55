"""What the script of a batch job answers, without the service around it."""

import json

import numpy as np

from modelserve.runtime import WorkerPool
from modelserve.session import Session
from modelserve.testing import models
from modelserve_azureml import batch_script


def test_every_line_of_a_file_is_answered_by_its_row_and_one_that_fails_says_why() -> None:
    bundle, rows = models.linear(), np.arange(12, dtype=np.float32).reshape(3, 4)
    lines = [{"$row": index, "inputs": {"x": row}, "outputs": ["y"]} for index, row in enumerate(rows.tolist())]
    lines.insert(1, {"$row": 7, "inputs": {"x": [1.0, 2.0]}, "outputs": ["y"]})
    pool = WorkerPool(bundle, workers=1)
    try:
        answer = batch_script._answers(pool, batch_script._Face(bundle))
        found = [json.loads(line) for line in answer("\n".join(map(json.dumps, lines)).encode()).splitlines()]
    finally:
        pool.close()
    assert [line["$row"] for line in found] == [0, 7, 1, 2]
    assert "outputs" not in found[1]
    wanted = Session(bundle).run({"x": rows})["y"]
    got = [line["outputs"]["y"] for line in found if "outputs" in line]
    np.testing.assert_allclose(np.array(got, np.float32), wanted, rtol=1e-6)
