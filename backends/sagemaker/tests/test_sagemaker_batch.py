"""Batch jobs on SageMaker beyond what every place keeps: attempts, failures, refusals, and what an update spares."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelserve.backend import DeploymentSpec, Endpoint, JobState, State, WorkPart
from modelserve.dataset.on_service import follow
from modelserve.deployment import Deployment
from modelserve.errors import InputError, ModelServeError, PreflightError
from modelserve.session import Session
from modelserve.standin.faults import Failing, Fault, Interrupted, LostAnswer, NotYetSeen, Switches, Throttled
from modelserve.testing import models
from modelserve_sagemaker.rehearsal import SageMakerRehearsal

Open = Callable[..., SageMakerRehearsal]
LINE = b'{"$row":[0,0],"inputs":{"x":[1,2,3,4]},"outputs":["y"]}\n'
PARTS = [WorkPart(0, LINE)]

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def deployed(rehearsal: SageMakerRehearsal, name: str = "digits") -> Endpoint:
    return rehearsal.backend.deploy(models.linear(), DeploymentSpec(name))


def records(rehearsal: SageMakerRehearsal) -> dict[str, str]:
    """The jobs that AWS has a record of, each with its status."""
    listed = rehearsal.backend._account.pages("sagemaker", "list_transform_jobs", "TransformJobSummaries")
    return {entry["TransformJobName"].rpartition("-")[2]: entry["TransformJobStatus"] for entry in listed}


def slow_start(rehearsal: SageMakerRehearsal) -> None:
    rehearsal.standin.faults.switches = Switches(start_delay_s=120)


def test_what_was_deleted_and_is_asked_for_again_is_another_attempt(rehearsal: SageMakerRehearsal) -> None:
    endpoint = deployed(rehearsal)
    before = rehearsal.leftovers()
    first = endpoint.batch("work", PARTS)
    assert follow(first, lambda _status: None).state is JobState.COMPLETED
    first.delete()
    assert rehearsal.leftovers() == before
    second = endpoint.batch("work", PARTS)
    assert second.name == f"{first.name[:-1]}2"
    assert follow(second, lambda _status: None).state is JobState.COMPLETED
    assert second.lines(0).startswith(b'{"$row":[0,0],"outputs":')
    assert records(rehearsal) == {"1": "Completed", "2": "Completed"}, "AWS forgets no job."
    # Records of jobs that have ended are nobody's leftovers; files are.
    rehearsal.backend.delete("digits")
    assert rehearsal.leftovers() == []
    assert rehearsal.backend.list() == []
    assert records(rehearsal) == {"1": "Completed", "2": "Completed"}


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        (Switches(crash_at_start=True), "AlgorithmError.*no-such-setting"),
        (Switches(replicas=1), "CapacityError"),  # which the endpoint has
    ],
)
def test_a_job_that_fails_says_why(rehearse: Open, switches: Switches, said: str) -> None:
    rehearsal = rehearse(batch_instances=2)
    endpoint = deployed(rehearsal)
    before = rehearsal.leftovers()
    rehearsal.standin.faults.switches = switches
    job = endpoint.batch("work", PARTS)
    status = follow(job, lambda _status: None)
    assert status.state is JobState.FAILED
    assert any(word in status.message for word in said.split(".*")), status
    job.delete()
    assert rehearsal.leftovers() == before


def test_a_job_is_followed_by_its_stages_and_stopped_where_it_waits(rehearsal: SageMakerRehearsal) -> None:
    endpoint = deployed(rehearsal)
    before = rehearsal.leftovers()
    slow_start(rehearsal)
    job = endpoint.batch("work", PARTS)
    assert (job.status().state, job.status().stage) == (JobState.RUNNING, "InProgress, waiting for machines")
    assert f"transform-job {job.name}" in rehearsal.leftovers()
    job.delete()
    assert rehearsal.leftovers() == before
    assert records(rehearsal) == {"1": "Stopped"}


def test_a_job_that_aws_does_not_see_at_once_is_waited_for(rehearsal: SageMakerRehearsal) -> None:
    endpoint = deployed(rehearsal)
    job = endpoint.batch("work", PARTS)
    rehearsal.standin.faults.plan("sagemaker.DescribeTransformJob", NotYetSeen(), times=2)
    stages: list[str] = []
    assert follow(job, lambda status: stages.append(status.stage)).state is JobState.COMPLETED
    assert stages[0] == "Created"


def test_a_job_that_somebody_else_stopped_has_failed_and_makes_way(rehearsal: SageMakerRehearsal) -> None:
    endpoint = deployed(rehearsal)
    slow_start(rehearsal)
    job = endpoint.batch("work", PARTS)
    rehearsal.backend._account.call("sagemaker", "stop_transform_job", TransformJobName=job.name)
    status = follow(job, lambda _status: None)
    assert (status.state, status.message) == (JobState.FAILED, "Something else stopped it.")
    rehearsal.standin.faults.clear()
    assert follow(endpoint.batch("work", PARTS), lambda _status: None).state is JobState.COMPLETED
    endpoint.delete()
    assert rehearsal.leftovers() == []


class OneSlowStart(Switches):
    """The next containers come late, those after them do not."""

    _asked = 0

    @property  # type: ignore[override]
    def start_delay_s(self) -> float:
        self._asked += 1
        return 8.0 if self._asked <= 2 else 0.0  # asked for, and asked how long

    @start_delay_s.setter
    def start_delay_s(self, value: float) -> None: ...


def test_an_update_spares_the_model_of_a_job_under_way(rehearsal: SageMakerRehearsal) -> None:
    endpoint = deployed(rehearsal)
    rehearsal.standin.faults.switches = OneSlowStart()
    job = endpoint.batch("work", PARTS)
    endpoint.update(models.linear(seed=1))
    assert len(rehearsal.standin.records.models) == 2
    assert follow(job, lambda _status: None).state is JobState.COMPLETED
    wanted = Session(models.linear()).run({"x": np.array([[1, 2, 3, 4]], np.float32)})["y"]
    assert str(float(np.round(wanted[0, 0], 4)))[:5].encode() in job.lines(0)
    endpoint.update(models.linear(seed=2))
    assert len(rehearsal.standin.records.models) == 1, "It goes with the update after the job."
    endpoint.delete()
    assert rehearsal.leftovers() == []


def test_of_two_programs_that_begin_the_same_work_one_does(rehearsal: SageMakerRehearsal) -> None:
    endpoint = deployed(rehearsal)
    before = rehearsal.leftovers()
    others = []

    def parts() -> Iterator[WorkPart]:
        yield from PARTS
        others.append(endpoint.batch("work", PARTS))

    job = endpoint.batch("work", parts())
    assert job.name == others[0].name
    assert follow(job, lambda _status: None).state is JobState.COMPLETED
    assert job.lines(0) == others[0].lines(0)
    assert records(rehearsal) == {"1": "Completed"}
    job.delete()
    assert rehearsal.leftovers() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instance_type": "ml.c7g.large"}, "has no machines of type 'ml.c7g.large'"),
        ({"instance_type": "ml.c7g.large", "batch_instance_type": "ml.m5.large"}, "image is for arm64"),
        ({"batch_instance_type": "ml.c5.large"}, "has no machines of type 'ml.c5.large'"),
        ({"batch_instance_type": "ml.g5.xlarge"}, "no use for"),
        ({"batch_instances": 21}, "may have 20 machines"),
    ],
)
def test_what_batch_transform_would_refuse_is_refused_before(
    rehearse: Open, options: dict[str, Any], said: str
) -> None:
    rehearsal = rehearse(**options)
    endpoint = deployed(rehearsal)
    before, taken = rehearsal.leftovers(), iter(PARTS)
    with pytest.raises(PreflightError, match=said):
        endpoint.batch("work", taken)
    assert list(taken) == PARTS
    assert rehearsal.leftovers() == before


def test_rows_may_be_large_and_not_too_large(rehearsal: SageMakerRehearsal) -> None:
    endpoint = deployed(rehearsal)
    before = rehearsal.leftovers()

    def part(size: int) -> WorkPart:
        return WorkPart(0, LINE.replace(b'"y"', b'"y"' + b" " * size))

    job = endpoint.batch("large", [part(9_000_000)])
    described = rehearsal.backend._account.call("sagemaker", "describe_transform_job", TransformJobName=job.name)
    assert (described["MaxPayloadInMB"], described["MaxConcurrentTransforms"]) == (10, 4)
    assert follow(job, lambda _status: None).state is JobState.COMPLETED
    assert job.lines(0).startswith(b'{"$row":[0,0],"outputs":')
    job.delete()
    with pytest.raises(InputError, match="engine='local'"):
        endpoint.batch("too-large", [part(17 << 20)])
    assert rehearsal.leftovers() == before


def test_many_rows_are_cut_into_several_requests_and_none_is_lost(rehearse: Open) -> None:
    rehearsal = rehearse(batch_instances=2)
    x = np.random.default_rng(0).normal(size=(120_000, 4)).astype(np.float32)
    x = np.concatenate([x, x[:1000]])
    endpoint = deployed(rehearsal)
    deployment = Deployment(endpoint, rehearsal.backend)
    report = deployment.predict_dataset({"x": list(x)}, "scored")
    assert (report.rows, report.failures, report.engine) == (len(x), 0, "batch")
    import pyarrow.parquet as pq

    tables = [pq.read_table(path)["y"].to_pylist() for path in sorted(Path("scored").glob("part-*.parquet"))]
    found = np.array([row for table in tables for row in table], np.float32)
    np.testing.assert_allclose(found, Session(models.linear()).run({"x": x})["y"], rtol=1e-4, atol=1e-5)


def test_a_data_set_without_a_row_that_fits_needs_no_job(rehearsal: SageMakerRehearsal) -> None:
    deployment = Deployment(deployed(rehearsal), rehearsal.backend)
    before = rehearsal.leftovers()
    report = deployment.predict_dataset(pd.DataFrame({"x": [np.ones(2, np.float32), np.ones(1, np.float32)]}), "scored")
    assert (report.rows, report.failures) == (2, 2)
    assert records(rehearsal) == {}
    assert rehearsal.leftovers() == before


FAULTS = [Failing("InternalFailure", "Ordered by a test.", 500), Throttled(), LostAnswer(), Interrupted()]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_job_any_of_whose_calls_fails_leaves_nothing(rehearsal: SageMakerRehearsal, fault: Fault) -> None:
    endpoint, faults = deployed(rehearsal), rehearsal.standin.faults
    before = rehearsal.leftovers()
    faults.clear()
    endpoint.batch("rehearsed", PARTS).delete()
    seen: Counter[str] = Counter()
    calls = [(call, seen[call]) for call in list(faults.calls) if not seen.update([call]) and seen[call] <= 2]
    begun = calls[: calls.index(("sagemaker.CreateTransformJob", 1)) + 1]
    assert len(begun) >= 6
    wrong = []
    for number, (call, nth) in enumerate(begun):
        faults.clear()
        faults.plan(call, fault, nth=nth)
        try:
            endpoint.batch(f"work-{number}", PARTS).delete()
        except (ModelServeError, KeyboardInterrupt):
            pass
        finally:
            faults.clear()
        if rehearsal.leftovers() != before:
            wrong.append((call, nth, rehearsal.leftovers()))
            rehearsal.backend._inventory.remove_files("digits")
    assert wrong == []


RUN = """
import sys, modelserve
modelserve.attach("digits", "elsewhere").predict_dataset(sys.argv[1], sys.argv[2], batch_rows=16)
"""


def test_a_killed_program_is_taken_up_with_the_job_that_it_began(
    rehearsal: SageMakerRehearsal, elsewhere: Callable[[SageMakerRehearsal], dict[str, str]], tmp_path: Path
) -> None:
    endpoint = deployed(rehearsal)
    np.savez(tmp_path / "rows.npz", x=np.ones((64, 4), np.float32))
    rehearsal.standin.faults.switches = Switches(start_delay_s=6)
    environment = {**os.environ, **elsewhere(rehearsal)}
    command = [sys.executable, "-c", RUN, str(tmp_path / "rows.npz"), str(tmp_path / "scored")]
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 60
        while not records(rehearsal):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    deployment = Deployment(endpoint, rehearsal.backend)
    report = deployment.predict_dataset(tmp_path / "rows.npz", tmp_path / "scored", batch_rows=16)
    assert (report.rows, report.failures) == (64, 0)
    assert records(rehearsal) == {"1": "Completed"}
    assert [one for one in rehearsal.leftovers() if "/jobs/" in one] == []


def test_a_running_job_without_its_endpoint_is_listed_and_deleted(rehearsal: SageMakerRehearsal) -> None:
    endpoint = deployed(rehearsal, "d" * 63)
    slow_start(rehearsal)
    endpoint.batch("work", PARTS)
    inventory = rehearsal.backend._inventory
    for one in inventory.resources("d" * 63):
        if one.kind in {"endpoint", "endpoint-config", "model"}:
            inventory.remove(one.kind, one.name)
    (left,) = rehearsal.backend.list()
    assert (left.name, left.state) == ("d" * 63, State.FAILED)
    assert "transform-job" in left.message
    rehearsal.backend.delete("d" * 63)
    assert rehearsal.leftovers() == []
