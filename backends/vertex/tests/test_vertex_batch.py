"""Batch prediction at the stand-in: beside what every batch service does, what is Vertex AI's own."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.cloud import aiplatform_v1 as v1

from modelserve.backend import DeploymentSpec, Job, JobState, NothingToDo, WorkPart
from modelserve.dataset import on_service
from modelserve.deployment import Deployment
from modelserve.errors import (
    BackendError,
    ConfigError,
    DeploymentNotFoundError,
    NotReadyError,
    PreflightError,
)
from modelserve.session import Session
from modelserve.standin.faults import Failing, LostAnswer, Switches
from modelserve.testing import models
from modelserve_vertex import VertexBackend
from modelserve_vertex.batch import answers
from modelserve_vertex.batch.job import VertexJob
from modelserve_vertex.rehearsal import VertexRehearsal
from modelserve_vertex.rehearsal.jobs import REQUEST

PARENT = "projects/demo/locations/europe-west4"
ROWS = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of 128 rows, a batch of 64."""
    monkeypatch.setattr(on_service, "_PART_BYTES", 128 * 16)
    monkeypatch.setattr(on_service, "_BATCH_ROWS", 64)


def deploy(rehearsal: VertexRehearsal, bundle: Any = None) -> Deployment:
    endpoint = rehearsal.backend.deploy(bundle or models.linear(), DeploymentSpec("churn"))
    return Deployment(endpoint, rehearsal.backend)


def part(number: int, rows: int = 2) -> WorkPart:
    lines = [f'{{"$row":[{number},{row}],"inputs":{{"x":[1,2,3,{row}]}},"outputs":["y"]}}\n' for row in range(rows)]
    return WorkPart(number, "".join(lines).encode())


def begin(deployment: Deployment, name: str = "some-work", *parts: WorkPart) -> Job:
    return deployment._endpoint.batch(name, parts or (part(0),))


def ended(job: Job) -> JobState:
    return on_service.follow(job, lambda _status: None).state


def scored(folder: Path) -> np.ndarray:
    import pyarrow.parquet as pq

    column = pq.ParquetDataset(sorted(folder.glob("part-*.parquet"))).read()["y"]
    return np.array(column.to_pylist(), np.float32)


def test_one_data_set(rehearsal: VertexRehearsal, tmp_path: Path) -> None:
    """The short way; the suite of conformance belongs to the long tests."""
    deployment = deploy(rehearsal)
    before = rehearsal.leftovers()
    report = deployment.predict_dataset({"x": ROWS}, tmp_path / "out")
    assert (report.rows, report.failures, report.engine) == (300, 0, "batch")
    np.testing.assert_allclose(scored(tmp_path / "out"), Session(models.linear()).run({"x": ROWS})["y"], rtol=1e-4)
    assert rehearsal.leftovers() == before


@pytest.mark.long
def test_the_request_says_what_the_options_say(rehearsal: VertexRehearsal) -> None:
    backend = VertexBackend({**rehearsal.options, "batch_machine_type": "n1-highcpu-4", "batch_replicas": 2})
    endpoint = backend.deploy(models.linear(), DeploymentSpec("churn"))
    job = endpoint.batch("some-work", [part(0, 3), part(7, 200)])
    (made,) = rehearsal.cloud.jobs.all
    (model,) = rehearsal.cloud.models.all
    assert (made.model, made.display_name) == (model.name, "churn-some-work")
    assert made.labels["modelserve-deployment"] == "churn"
    assert made.dedicated_resources.machine_spec.machine_type == "n1-highcpu-4"
    assert made.dedicated_resources.starting_replica_count == made.dedicated_resources.max_replica_count == 2
    assert made.manual_batch_tuning_parameters.batch_size == 256
    assert ended(job) is JobState.COMPLETED
    assert [len(job.lines(number).splitlines()) for number in (0, 7)] == [3, 200]
    written = [name for name in rehearsal.leftovers() if "prediction.results-" in name]
    assert [name[-5:] for name in written] == ["00002", "00002"]
    with pytest.raises(DeploymentNotFoundError, match="no part 1"):
        job.lines(1)


@pytest.mark.long
def test_wide_rows_are_sent_a_few_at_a_time(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    wide = WorkPart(0, b'{"$row":[0,0],"inputs":{"x":[%b]},"outputs":["y"]}\n' % b",".join([b"1.25"] * 60_000))
    begin(deployment, "wide", wide)
    (made,) = rehearsal.cloud.jobs.all
    assert made.manual_batch_tuning_parameters.batch_size == 1_000_000 // (len(wide.lines) - 1) == 3


@pytest.mark.long
@pytest.mark.usefixtures("small_parts")
def test_parts_that_the_service_did_not_answer_whole_are_asked_for_again(
    rehearsal: VertexRehearsal, tmp_path: Path
) -> None:
    """Of three requests, one a part, the last fails three times, which is as often as the service tries."""
    deployment = deploy(rehearsal)
    rehearsal.cloud.faults.clear()
    rehearsal.cloud.faults.plan(REQUEST, Failing("UNAVAILABLE", "The worker is gone.", 503), nth=3, times=3)
    before, rows = rehearsal.leftovers(), []
    report = deployment.predict_dataset({"x": ROWS}, tmp_path / "out", progress=lambda now: rows.append(now.rows))
    assert (report.rows, report.parts, report.failures) == (300, 3, 0)
    np.testing.assert_allclose(scored(tmp_path / "out"), Session(models.linear()).run({"x": ROWS})["y"], rtol=1e-4)
    calls = rehearsal.cloud.faults.calls
    assert (calls.count("CreateBatchPredictionJob"), calls.count(REQUEST)) == (2, 2 + 3 + 1)
    assert max(rows) == 300
    assert rehearsal.leftovers() == before


@pytest.mark.long
def test_a_part_that_is_not_whole_is_told_in_the_services_words(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    rehearsal.cloud.faults.plan(REQUEST, Failing("UNAVAILABLE", "The worker is gone.", 503), times=3)
    job = begin(deployment, "some-work", part(0), part(1))
    assert ended(job) is JobState.COMPLETED
    with pytest.raises(DeploymentNotFoundError, match=r"0 of the 2 rows of part 0: .*503 \(The worker is gone"):
        job.lines(0)
    assert len(job.lines(1).splitlines()) == 2


@pytest.mark.long
def test_a_job_none_of_whose_rows_is_answered_has_failed(rehearsal: VertexRehearsal, tmp_path: Path) -> None:
    deployment = deploy(rehearsal)
    before = rehearsal.leftovers()
    rehearsal.cloud.faults.plan(REQUEST, Failing("UNAVAILABLE", "The worker is gone.", 503), times=99)
    with pytest.raises(BackendError, match=r"all of its instances failed: .*The worker is gone"):
        deployment.predict_dataset({"x": ROWS[:10]}, tmp_path / "out")
    assert rehearsal.leftovers() == before


@pytest.mark.long
def test_containers_that_do_not_start_fail_the_job_with_their_log(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    before = rehearsal.leftovers()
    rehearsal.cloud.faults.switches = Switches(crash_at_start=True)
    job = begin(deployment)
    status = on_service.follow(job, lambda _status: None)
    assert status.state is JobState.FAILED
    assert "no-such-setting" in status.message
    with pytest.raises(NotReadyError, match="'Failed'"):
        job.lines(0)
    job.delete()
    assert rehearsal.leftovers() == before


@pytest.mark.long
def test_a_job_that_starts_slowly_is_followed_and_can_be_stopped(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    before = rehearsal.leftovers()
    rehearsal.cloud.faults.switches = Switches(never_healthy=True)
    job = begin(deployment)
    assert job.status() == (JobState.RUNNING, "Pending", "")
    started = time.monotonic()
    job.delete()
    assert time.monotonic() - started < 30
    assert rehearsal.leftovers() == before
    with pytest.raises(DeploymentNotFoundError):
        job.status()


@pytest.mark.long
def test_a_job_that_cannot_be_deleted_yet_is_deleted_a_moment_later(rehearsal: VertexRehearsal) -> None:
    job = begin(deploy(rehearsal))
    assert ended(job) is JobState.COMPLETED
    rehearsal.cloud.faults.plan("DeleteBatchPredictionJob", Failing("FAILED_PRECONDITION", "Not yet."), times=3)
    job.delete()
    assert rehearsal.cloud.jobs.all == []


@pytest.mark.long
def test_a_model_that_rests_answers_a_data_set_all_the_same(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    deployment.scale(0)
    assert ended(begin(deployment)) is JobState.COMPLETED


@pytest.mark.long
def test_an_update_ends_the_jobs_of_the_model_that_it_replaces(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    rehearsal.cloud.faults.switches = Switches(start_delay_s=5)
    begin(deployment)
    rehearsal.cloud.faults.clear()
    deployment.update(models.linear(seed=1))
    assert rehearsal.cloud.jobs.all == []
    assert not [name for name in rehearsal.leftovers() if "/jobs/" in name]


@pytest.mark.long
def test_work_without_a_row_needs_no_job(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    before = rehearsal.leftovers()
    job = deployment._endpoint.batch("empty", [])
    assert isinstance(job, NothingToDo)
    assert ended(job) is JobState.COMPLETED
    assert rehearsal.leftovers() == before


@pytest.mark.long
def test_a_request_that_would_be_refused_is_refused_before_anything_is_sent(rehearsal: VertexRehearsal) -> None:
    deploy(rehearsal).close()
    backend = VertexBackend({**rehearsal.options, "batch_machine_type": "ml.m5.large"})
    before = rehearsal.leftovers()
    with pytest.raises(PreflightError, match="machine_type"):
        backend.attach("churn").batch("some-work", iter([part(0)]))
    assert rehearsal.leftovers() == before
    with pytest.raises(ConfigError, match="batch_replicas"):
        VertexBackend({**rehearsal.options, "batch_replicas": 0})


@pytest.mark.long
def test_an_upload_that_was_broken_off_is_no_part_of_the_next_job(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    rehearsal.cloud.objects.put("demo-modelserve-europe-west4", "modelserve/churn/jobs/some-work/input/9-1.jsonl", b"x")
    job = begin(deployment)
    assert ended(job) is JobState.COMPLETED
    with pytest.raises(DeploymentNotFoundError, match="no part 9"):
        job.lines(9)


@pytest.mark.long
def test_of_two_jobs_that_were_begun_at_once_the_older_stays(
    rehearsal: VertexRehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deploy(rehearsal)
    first = begin(deployment)
    service = rehearsal.backend._target.batch_predictions
    matching, looks = service.matching, itertools.count()
    # As it is for a program that looked before the other one's job was there.
    monkeypatch.setattr(service, "matching", lambda labels: matching(labels) if next(looks) else [])
    second = begin(deployment)
    assert isinstance(first, VertexJob)
    assert isinstance(second, VertexJob)
    assert second._resource == first._resource
    assert len(rehearsal.cloud.jobs.all) == 1


_PROGRAM = """
import json, sys, numpy, modelserve
rows = numpy.load(sys.argv[1])
print("begun", flush=True)
with modelserve.attach("churn", "elsewhere") as deployment:
    deployment.predict_dataset({"x": rows}, sys.argv[2])
"""


@pytest.mark.long
def test_a_program_that_is_killed_is_followed_by_another_with_the_same_job(
    rehearsal: VertexRehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deploy(rehearsal)
    before = rehearsal.leftovers()
    rehearsal.cloud.faults.clear()
    rehearsal.cloud.faults.switches = Switches(start_delay_s=3)
    for name, value in {"backend": "vertex", **rehearsal.options}.items():
        if value is not None:
            told = value if name == "backend" else json.dumps(value)
            monkeypatch.setenv(f"MODELSERVE_TARGETS__ELSEWHERE__{name.upper()}", told)
    np.save(tmp_path / "rows.npy", ROWS)
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path / "rows.npy"), str(tmp_path / "out")]
    with subprocess.Popen(command) as program:
        deadline = time.monotonic() + 60
        while not rehearsal.cloud.jobs.all:
            assert program.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        program.send_signal(signal.SIGKILL)
    report = deployment.predict_dataset({"x": ROWS}, tmp_path / "out")
    assert report.rows == 300
    assert rehearsal.cloud.faults.calls.count("CreateBatchPredictionJob") == 1
    assert rehearsal.leftovers() == before


@pytest.mark.long
def test_a_job_without_its_endpoint_is_listed_and_deleted_by_name(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    begin(deployment)
    rehearsal.backend._target.resources.remove_endpoint(f"{PARENT}/endpoints/churn")
    (left,) = rehearsal.backend.list()
    assert "model 'churn-" in left.message
    rehearsal.backend.delete("churn")
    assert rehearsal.leftovers() == []


@pytest.mark.long
def test_a_creation_whose_answer_is_lost_is_undone_and_only_that(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    other = begin(deployment, "other")
    before = rehearsal.leftovers()
    rehearsal.cloud.faults.plan("CreateBatchPredictionJob", LostAnswer())
    with pytest.raises(Exception, match="Creating the batch job"):
        begin(deployment)
    assert ended(other) is JobState.COMPLETED
    assert {name for name in before if "/output/" not in name} <= set(rehearsal.leftovers())
    assert not [name for name in rehearsal.leftovers() if "some-work" in name]
    assert len(rehearsal.cloud.jobs.all) == 1


class Blob:
    """An object of results."""

    def __init__(self, *lines: bytes) -> None:
        self.lines = lines


class Files:
    """A job's files, without a cloud."""

    def __init__(self, *blobs: Blob) -> None:
        self.blobs = blobs

    def results(self, _directory: str) -> list[Blob]:
        return list(self.blobs)

    def fetch(self, blob: Blob, into: Path) -> None:
        into.write_bytes(b"".join(line + b"\n" for line in blob.lines))


def result(part: float, row: float, value: object) -> bytes:
    answer = {"outputs": {"y": value}, "$row": [part, row]}
    return json.dumps({"instance": {"$row": [part, row]}, "prediction": answer}).encode()


def test_results_are_sorted_into_their_parts_whatever_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_HELD_BYTES", 50)  # so that parts are written in pieces
    one, two = Blob(result(1, 0, [1.5]), result(0, 1, [2])), Blob(result(0, 0, None), result(1, 1, "é"))
    found = answers.Answers(Files(one, two), "gs://b/o")  # type: ignore[arg-type]  # what it asks of files
    assert dict(found.rows) == {0: 2, 1: 2}
    assert found.lines(0) == b'{"$row":[0,1],"outputs":{"y":[2]}}\n{"$row":[0,0],"outputs":{"y":null}}\n'
    assert found.lines(1).decode() == '{"$row":[1,0],"outputs":{"y":[1.5]}}\n{"$row":[1,1],"outputs":{"y":"é"}}\n'


def test_rows_are_found_though_the_service_made_doubles_of_their_numbers() -> None:
    found = answers.Answers(Files(Blob(result(3.0, 4.0, [1]))), "")  # type: ignore[arg-type]  # as above
    assert found.lines(3).startswith(b'{"$row":[3,4],')


@pytest.mark.parametrize("line", [b"", b"{}", b'{"prediction": "id"}', b'{"prediction": {"$row": "x"}}', b'{"predic'])
def test_a_line_that_answers_no_row_is_told_with_what_to_do(line: bytes) -> None:
    with pytest.raises(BackendError, match="engine='local'"):
        answers.Answers(Files(Blob(line)), "")  # type: ignore[arg-type]  # as above


def test_the_files_of_answers_go_with_them() -> None:
    found = answers.Answers(Files(Blob(result(0, 0, 1))), "")  # type: ignore[arg-type]  # as above
    folder = found._folder
    assert folder.is_dir()
    del found
    assert not folder.exists()


def test_states_are_all_of_the_libraries() -> None:
    from modelserve_vertex.batch.service import ENDED

    running = {"UNSPECIFIED", "QUEUED", "PENDING", "RUNNING", "CANCELLING", "PAUSED", "UPDATING"}
    assert {state.name.removeprefix("JOB_STATE_") for state in v1.JobState if state not in ENDED} == running
