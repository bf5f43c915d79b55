"""The engine of batch services, over one in this process: what it refuses, follows, notices and leaves behind."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Done

import modelserve as ms
from modelserve import Deployment, errors
from modelserve.backend import Capability, Job, Support
from modelserve.dataset import on_service
from modelserve.testing import models
from modelserve.testing.memory import InMemoryBackend, MemoryCloud
from modelserve.testing.memory_job import MemoryJob

X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_service, "_PART_BYTES", 64 * 16)
    monkeypatch.setattr(on_service, "_BATCH_ROWS", 32)
    monkeypatch.setattr(on_service, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def deployment(memory: MemoryCloud) -> Iterator[Deployment]:
    with ms.Model(models.linear()).serve("memory", name="linear") as found:
        yield found


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": np.arange(len(X)), **{f"f{at}": X[:, at] for at in range(4)}}), path)
    return path


def made_jobs(monkeypatch: pytest.MonkeyPatch) -> list[MemoryJob]:
    """Every job that is made from now on."""
    found: list[MemoryJob] = []
    begin = MemoryJob.__init__

    def noted(job: MemoryJob, *arguments: Any) -> None:
        found.append(job)
        begin(job, *arguments)

    monkeypatch.setattr(MemoryJob, "__init__", noted)
    return found


def test_it_is_the_default_where_the_place_has_such_a_service(deployment, rows, memory, monkeypatch) -> None:
    assert deployment.predict_dataset(rows, "by default", keep=["id"]).engine == "batch"
    assert deployment.predict_dataset(rows, "live", keep=["id"], engine="local").engine == "local"
    monkeypatch.setitem(InMemoryBackend.support, Capability.BATCH, Support.IMPOSSIBLE)
    assert deployment.predict_dataset(rows, "without", keep=["id"]).engine == "local"
    with pytest.raises(errors.NotSupportedError, match="does not offer 'batch'"):
        deployment.predict_dataset(rows, "asked for", keep=["id"], engine="batch")


def test_both_engines_answer_alike_and_the_manifest_tells_them_apart(deployment, rows) -> None:
    deployment.predict_dataset(rows, "batch", keep=["id"])
    deployment.predict_dataset(rows, "local", keep=["id"], engine="local")
    found, wanted = (pq.read_table(name) for name in ("batch", "local"))
    assert found["id"].to_pylist() == wanted["id"].to_pylist() == list(range(200))
    np.testing.assert_allclose(found["y"].to_pylist(), wanted["y"].to_pylist(), rtol=1e-6)
    heads = [json.loads(Path(name, "_manifest.jsonl").read_text().splitlines()[0]) for name in ("batch", "local")]
    assert [head.get("engine") for head in heads] == ["batch", None]
    with pytest.raises(errors.ResumeError, match="engine"):
        deployment.predict_dataset(rows, "batch", keep=["id"], engine="local", batch_rows=32)


def test_rows_that_can_be_read_once_only_are_refused_before_anything_is_made(deployment) -> None:
    with pytest.raises(errors.NotSupportedError, match="reads the rows twice"):
        deployment.predict_dataset(iter([{"x": [1.0, 2, 3, 4]}]), "out", cast=True)
    assert not Path("out").exists()


def test_a_model_whose_rows_belong_together_is_refused(memory) -> None:
    with ms.Model(models.joint()).serve("memory", name="joint") as deployment:
        x = np.ones((8, *deployment.signature.inputs[0].shape[1:]), np.float32)
        with pytest.raises(errors.NotSupportedError, match="depend on all rows"):
            deployment.predict_dataset({"x": x}, "out", batch_rows=4)


def test_a_job_that_fails_is_told_with_its_reason_and_taken_away(deployment, rows, memory) -> None:
    memory.fail_next("job", errors.QuotaError("No machine of that size is free."))
    with pytest.raises(errors.BackendError, match="No machine of that size"):
        deployment.predict_dataset(rows, "out", keep=["id"])
    assert memory.jobs == {}
    assert deployment.predict_dataset(rows, "out", keep=["id"]).rows == 200


def test_a_service_that_could_not_answer_fails_no_row(deployment, rows, memory, monkeypatch) -> None:
    not_ready = b'{"$row":[0,%d],"error":"Not ready.","code":"not_ready"}'
    monkeypatch.setattr(MemoryJob, "lines", lambda _job, _part: b"\n".join(not_ready % at for at in range(64)))
    with pytest.raises(errors.NotReadyError, match="batch service could not answer"):
        deployment.predict_dataset(rows, "out", keep=["id"])
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda lines: lines[1:], "1 rows have no answer, the first is row"),
        (lambda lines: [line.replace(b"[0,", b"[7,") for line in lines], "another row"),
        (lambda lines: [line.replace(b'"y"', b'"z"') for line in lines], "no output 'y'"),
        (lambda lines: [line[:-3] for line in lines], "not JSON"),
        (lambda lines: [b'{"$row":null,"error":"?","code":"wire"}', *lines[1:]], "another row"),
    ],
    ids=["a row is missing", "another part's", "another output", "cut short", "of no row"],
)
def test_answers_that_do_not_fit_are_noticed(
    deployment, rows, monkeypatch, spoil: Callable[[list[bytes]], list[bytes]], why: str
) -> None:
    whole = MemoryJob.lines
    monkeypatch.setattr(MemoryJob, "lines", lambda job, part: b"\n".join(spoil(whole(job, part).split(b"\n"))))
    with pytest.raises(errors.WireError, match=why):
        deployment.predict_dataset(rows, "out", keep=["id"])


def test_whoever_stops_waiting_leaves_the_job_and_finds_it_again(deployment, rows, memory, monkeypatch) -> None:
    jobs = made_jobs(monkeypatch)
    memory.gate.clear()

    def stop(progress: ms.dataset.Progress) -> None:
        if "job" in progress.doing:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deployment.predict_dataset(rows, "out", keep=["id"], progress=stop)
    assert len(memory.jobs) == 1
    memory.gate.set()
    assert deployment.predict_dataset(rows, "out", keep=["id"]).rows == 200
    assert len(jobs) == 1, "The work was done twice."
    assert memory.jobs == {}


def test_a_part_that_was_damaged_is_asked_for_anew(deployment, rows, monkeypatch) -> None:
    deployment.predict_dataset(rows, "out", keep=["id"])
    before = Path("out/part-00001.parquet").read_bytes()
    Path("out/part-00001.parquet").write_bytes(before[:-9])
    jobs = made_jobs(monkeypatch)
    assert deployment.predict_dataset(rows, "out", keep=["id"]).resumed_rows == 136
    assert Path("out/part-00001.parquet").read_bytes() == before
    assert [list(job._work) for job in jobs] == [[1]]


def test_a_job_that_lacks_a_part_is_made_anew(deployment, rows, memory, monkeypatch) -> None:
    lacking = MemoryJob.lines
    asked: list[tuple[Job, int]] = []

    def lines(job: MemoryJob, part: int) -> bytes:
        asked.append((job, part))
        if part == 2 and job is asked[0][0]:
            raise errors.DeploymentNotFoundError("The part is not there.")
        return lacking(job, part)

    monkeypatch.setattr(MemoryJob, "lines", lines)
    assert deployment.predict_dataset(rows, "out", keep=["id"]).rows == 200
    assert len({job for job, _ in asked}) == 2
    assert memory.jobs == {}


def test_rows_that_cannot_be_read_or_do_not_fit_are_never_sent(memory, monkeypatch, tmp_path) -> None:
    (tmp_path / "rows.csv").write_text("index\n1\nfree\n2\n99\n0\n")
    jobs = made_jobs(monkeypatch)
    with ms.Model(models.picky()).serve("memory", name="picky") as deployment:
        report = deployment.predict_dataset(tmp_path / "rows.csv", "out")
    assert (report.rows, report.failures) == (5, 2)
    sent = [
        json.loads(line)["inputs"]["index"] for job in jobs for part in job._work.values() for line in part.splitlines()
    ]
    assert sent == [1, 2, 99, 0]
    letters = [json.loads(line) for line in Path("out/_failed-00000.jsonl").read_text().splitlines()]
    assert [letter["origin_row"] for letter in letters] == [1, 3]


def test_nothing_waits_for_a_job_for_longer_than_it_runs(deployment, rows, memory) -> None:
    memory.gate.clear()
    timer = threading.Timer(0.3, memory.gate.set)
    timer.start()
    report = deployment.predict_dataset(rows, "out", keep=["id"])
    timer.join()
    assert 0.2 < report.stages["job"] < 20


def test_the_command_line_asks_the_service_or_the_endpoint(run: Callable[..., Done], rows, memory) -> None:
    bundle = models.linear()
    assert run("deploy", bundle.path, "-t", "memory", "--name", "linear").status == 0
    by_job = run("predict", "linear", rows, "-t", "memory", "-o", "by-job", "--keep", "id", "--json")
    live = run("predict", "linear", rows, "-t", "memory", "-o", "live", "--keep", "id", "--engine", "local", "--json")
    assert (by_job.content["engine"], live.content["engine"]) == ("batch", "local"), by_job.err + live.err


def test_a_job_that_another_run_took_away_is_begun_anew(deployment, rows, memory, monkeypatch) -> None:
    jobs = made_jobs(monkeypatch)
    memory.gate.clear()

    def take_away(progress: ms.dataset.Progress) -> None:
        if "job" in progress.doing and len(jobs) == 1:
            jobs[0].delete()
            memory.gate.set()

    assert deployment.predict_dataset(rows, "out", keep=["id"], progress=take_away).rows == 200
    assert (len(jobs), memory.jobs) == (2, {})
