"""What goes wrong at SageMaker, one thing at a time, and what a caller hears of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelserve.backend import DeploymentSpec, Scale, State
from modelserve.deployment import Deployment
from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    DeadlineError,
    DeploymentNotFoundError,
    InputError,
    ModelServeError,
    NotReadyError,
    NotSupportedError,
    OverloadedError,
    QuotaError,
    StartError,
)
from modelserve.standin.faults import Failing, NotYetSeen, Switches
from modelserve.standin.load import Load
from modelserve.testing import models
from modelserve_sagemaker.rehearsal import SageMakerRehearsal

Open = Callable[..., SageMakerRehearsal]
ROWS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
SPEC = DeploymentSpec("digits")

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def deployed(rehearsal: SageMakerRehearsal, spec: DeploymentSpec = SPEC, **more: Any) -> Deployment:
    return Deployment(rehearsal.backend.deploy(models.linear(**more), spec), rehearsal.backend)


ANSWERS = [
    (Failing("ThrottlingException", "Rate exceeded", 429), OverloadedError),
    (Failing("ServiceUnavailable", "Try later", 503), OverloadedError),
    (Failing("ModelNotReadyException", "Cold", 429), NotReadyError),
    (Failing("ValidationError", "Endpoint digits of account 1 not found."), DeploymentNotFoundError),
    (Failing("ValidationError", "Body is too long"), InputError),
    (Failing("AccessDeniedException", "No", 403), AccessDeniedError),
    (Failing("InternalDependencyException", "Ours", 530), BackendError),
]


def test_an_inference_is_asked_once_and_its_refusal_is_told(rehearsal: SageMakerRehearsal) -> None:
    deployment, faults = deployed(rehearsal), rehearsal.standin.faults
    for fault, error in ANSWERS:
        faults.clear()
        faults.plan("sagemaker-runtime.InvokeEndpoint", fault, times=9)
        with pytest.raises(error, match="digits"):
            deployment.predict(ROWS)
        assert faults.calls == ["sagemaker-runtime.InvokeEndpoint"]
    faults.clear()
    assert deployment.predict(ROWS).shape == (2, 3)


def test_an_answer_that_takes_longer_than_the_service_allows_is_a_deadline_error(rehearsal: SageMakerRehearsal) -> None:
    deployment = Deployment(rehearsal.backend.deploy(models.slow(2_000), SPEC), rehearsal.backend)
    rows = np.ones((512, 128), np.float32)
    rehearsal.standin.door.timeout_s = 0.01
    with pytest.raises(DeadlineError, match="60 s"):
        deployment.predict(rows)
    rehearsal.standin.door.timeout_s = 60
    assert deployment.predict(rows[:1]).shape == (1, 128)


def test_what_aws_does_not_see_at_once_is_waited_for(rehearsal: SageMakerRehearsal) -> None:
    faults = rehearsal.standin.faults
    for operation in ("CreateEndpointConfig", "CreateEndpoint", "DescribeEndpoint"):
        faults.plan(f"sagemaker.{operation}", NotYetSeen(), nth=2 if operation == "DescribeEndpoint" else 1)
    assert deployed(rehearsal).predict(ROWS).shape == (2, 3)


@pytest.mark.parametrize(
    ("switches", "error", "said"),
    [
        (Switches(replicas=0), QuotaError, "no machines"),
        (Switches(never_healthy=True), StartError, "did not pass the ping health check"),
        (Switches(crash_at_start=True), StartError, "no-such-setting"),
    ],
)
def test_what_cannot_start_is_told_and_leaves_nothing(
    rehearse: Open, switches: Switches, error: type[ModelServeError], said: str
) -> None:
    # A crash is seen at once; what is never healthy is waited for, and 60 s of AWS are 3 here.
    rehearsal = rehearse(startup_timeout_s=60 if switches.never_healthy else 600)
    rehearsal.standin.faults.switches = switches
    with pytest.raises(error, match=said):
        deployed(rehearsal)
    assert rehearsal.leftovers() == []


def test_an_update_that_cannot_start_leaves_the_old_one_answering(rehearsal: SageMakerRehearsal) -> None:
    deployment = deployed(rehearsal)
    before, wanted = rehearsal.leftovers(), deployment.predict(ROWS)
    rehearsal.standin.faults.switches = Switches(crash_at_start=True)
    with pytest.raises(StartError, match="no-such-setting"):
        deployment.update(models.linear(seed=1))
    assert rehearsal.leftovers() == before
    np.testing.assert_array_equal(deployment.predict(ROWS), wanted)
    assert deployment.status().digest == models.linear().digest


def test_a_canary_answers_part_and_an_alarm_takes_it_back(rehearse: Open) -> None:
    rehearsal = rehearse(canary_percent=50, canary_wait_s=600, alarms=["bad"])
    cloudwatch = rehearsal.standin.upstream.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="bad", Namespace="AWS/SageMaker", MetricName="Invocation5XXErrors", Statistic="Sum", Period=60,
        EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    deployment = deployed(rehearsal, DeploymentSpec("digits", Scale.fixed(2)))
    old = deployment.predict(ROWS)
    failed: list[BaseException] = []

    def update() -> None:
        try:
            Deployment(rehearsal.backend.attach("digits"), rehearsal.backend).update(models.linear(seed=1))
        except ModelServeError as error:
            failed.append(error)

    updating = threading.Thread(target=update)
    updating.start()
    deadline = time.monotonic() + 60
    while (deployment.predict(ROWS) == old).all():
        assert time.monotonic() < deadline, "The canary answers nothing."
    cloudwatch.set_alarm_state(AlarmName="bad", StateValue="ALARM", StateReason="A test.")
    updating.join(60)
    (error,) = failed
    assert "alarm(s) went off: bad" in str(error)
    assert all((deployment.predict(ROWS) == old).all() for _ in range(20))
    assert deployment.status().digest == models.linear().digest


def test_scaling_for_which_there_is_no_room_keeps_what_there_is(rehearsal: SageMakerRehearsal) -> None:
    deployment = deployed(rehearsal)
    rehearsal.standin.faults.switches = Switches(replicas=1)
    with pytest.raises(QuotaError, match="capacity"):
        deployment.scale(3)
    assert len(deployment.status().replicas) == 1
    assert deployment.predict(ROWS).shape == (2, 3)


def test_target_tracking_adds_replicas_under_load_and_takes_them_back(rehearsal: SageMakerRehearsal) -> None:
    spec = DeploymentSpec("digits", Scale(1, 2, target_inflight=1))
    deployment = Deployment(rehearsal.backend.deploy(models.slow(400), spec), rehearsal.backend)
    rows = np.ones((64, 128), np.float32)
    with Load(lambda: _same(deployment.predict(rows), (64, 128)), threads=4) as load:
        _wait_for_replicas(deployment, 2)
    assert load.failures == []
    _wait_for_replicas(deployment, 1)
    deployment.delete()
    assert rehearsal.leftovers() == []


def test_processors_at_work_add_replicas_and_the_share_is_kept_on_other_machines(
    rehearsal: SageMakerRehearsal, rehearse: Open
) -> None:
    spec = DeploymentSpec("digits", Scale(1, 2, target_cpu=0.1))  # of two processors: 20 % of one, 2 to go with 40 %
    deployment = Deployment(rehearsal.backend.deploy(models.slow(400), spec), rehearsal.backend)
    assert deployment.status().scale == spec.scale
    rows = np.ones((64, 128), np.float32)
    with Load(lambda: _same(deployment.predict(rows), (64, 128)), threads=2) as load:
        _wait_for_replicas(deployment, 2)
    assert load.failures == []
    _wait_for_replicas(deployment, 1)
    larger = type(rehearsal.backend)(
        rehearsal.backend._options.model_copy(update={"instance_type": "ml.c7i.xlarge"}).model_dump()
    )
    larger._account.session = rehearsal.backend._account.session
    larger.deploy(models.slow(400), DeploymentSpec("digits")).close()
    (policy,) = rehearsal.standin.autoscaling.policies.popitem()[1].values()
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == pytest.approx(40)


def _wait_for_replicas(deployment: Deployment, count: int) -> None:
    deadline = time.monotonic() + 90
    while [one.state for one in deployment.status().replicas] != [State.READY] * count:
        assert time.monotonic() < deadline, deployment.status()
        time.sleep(0.1)


def test_an_endpoint_of_somebody_elses_is_never_touched(rehearsal: SageMakerRehearsal) -> None:
    sagemaker = rehearsal.backend._account.client("sagemaker")
    deployed(rehearsal).close()
    sagemaker.create_endpoint(
        EndpointName="theirs",
        EndpointConfigName=sagemaker.describe_endpoint(EndpointName="digits")["EndpointConfigName"],
    )
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="theirs", WaiterConfig={"Delay": 1})
    with pytest.raises(ConfigError, match="not made by modelserve"):
        deployed(rehearsal, DeploymentSpec("theirs"))
    rehearsal.backend.delete("theirs")
    assert sagemaker.describe_endpoint(EndpointName="theirs")["EndpointStatus"] == "InService"
    assert [status.name for status in rehearsal.backend.list()] == ["digits"]


def test_what_a_killed_process_left_is_listed_and_deleted(rehearsal: SageMakerRehearsal) -> None:
    deployed(rehearsal).close()
    rehearsal.backend._account.call("sagemaker", "delete_endpoint", EndpointName="digits")
    deadline = time.monotonic() + 30
    while rehearsal.standin.records.endpoints:
        assert time.monotonic() < deadline
    (left,) = rehearsal.backend.list()
    assert (left.name, left.state, left.digest) == ("digits", State.FAILED, models.linear().digest)
    assert "modelserve delete digits" in left.message
    rehearsal.backend.delete("digits")
    assert rehearsal.leftovers() == []


@pytest.mark.parametrize(
    ("scale", "said"),
    [(Scale(0, 1), "at least one machine"), (Scale(1, 2, target_cpu=0.5), "target_inflight")],
)
def test_a_scale_that_sagemaker_has_not_is_refused(rehearse: Open, scale: Scale, said: str) -> None:
    deployment = deployed(rehearse(instance_type="ml.t2.medium"))
    with pytest.raises(NotSupportedError, match=said):
        deployment._endpoint.scale(scale)


def test_a_serverless_endpoint_answers_and_scales_by_concurrency(rehearse: Open) -> None:
    rehearsal = rehearse(mode="serverless")
    deployment = deployed(rehearsal, DeploymentSpec("digits", Scale(2, 10)))
    assert deployment.status().scale == Scale(2, 10)
    assert [replica.name for replica in deployment.status().replicas] == ["warm-0", "warm-1"]
    assert deployment.predict(ROWS).shape == (2, 3)
    assert deployment.limits.request_bytes == 4 << 20
    deployment.scale(minimum=3, maximum=50)
    assert deployment.status().scale == Scale(3, 50)
    deployment.delete()
    assert rehearsal.leftovers() == []


def test_an_asynchronous_endpoint_answers_by_s3_small_and_large(rehearse: Open) -> None:
    rehearsal = rehearse(mode="asynchronous")
    deployment = deployed(rehearsal)
    large = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    with Load(lambda: _same(deployment.predict(ROWS), (2, 3)), threads=4) as load:
        load.wait_for(8)
        assert deployment.predict(large).shape == (20_000, 3)
    assert load.failures == []
    kept = [one for one in rehearsal.leftovers() if "/answers/" in one or "/questions/" in one]
    assert kept == []
    picky = Deployment(rehearsal.backend.deploy(models.picky(), DeploymentSpec("picky")), rehearsal.backend)
    with pytest.raises(ModelServeError, match="out of"):
        picky.predict(np.array([99]))
    for each in (deployment, picky):
        each.delete()
    assert rehearsal.leftovers() == []


def _same(answer: np.ndarray, shape: tuple[int, ...]) -> None:
    assert answer.shape == shape
