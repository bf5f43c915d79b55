"""A deployment's life on the stand-in: beside what every backend does, what is Vertex AI's own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from google.cloud import aiplatform_v1 as v1

from modelserve.backend import DeploymentSpec, Scale, State, Verdict
from modelserve.backend.journal import unfinished
from modelserve.backend.oip import sized_request
from modelserve.deployment import Deployment
from modelserve.errors import (
    AccessDeniedError,
    ConfigError,
    DeadlineError,
    InputError,
    ModelServeError,
    NotReadyError,
    NotSupportedError,
    OverloadedError,
    PreflightError,
    QuotaError,
    StartError,
)
from modelserve.session import Session
from modelserve.standin.faults import Failing, Switches
from modelserve.testing import models
from modelserve.wire import encode_request
from modelserve_vertex import VertexBackend
from modelserve_vertex.canary import is_worse
from modelserve_vertex.counted import Count
from modelserve_vertex.rehearsal import VertexRehearsal

ROWS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
Open = Callable[..., VertexRehearsal]


@pytest.fixture
def rehearse() -> Iterator[Open]:
    """Opens stand-ins with options of the test's own."""
    opened: list[VertexRehearsal] = []

    def rehearse(**options: Any) -> VertexRehearsal:
        found = VertexBackend({"project": "demo", "region": "europe-west4", "workers": 1, **options}).rehearsal()
        assert isinstance(found, VertexRehearsal)
        opened.append(found)
        return found

    yield rehearse
    for rehearsal in opened:
        rehearsal.close()


def deploy(rehearsal: VertexRehearsal, bundle: Any = None, **spec: Any) -> Deployment:
    endpoint = rehearsal.backend.deploy(bundle or models.linear(), DeploymentSpec("churn", **spec))
    return Deployment(endpoint, rehearsal.backend)


def test_one_life(rehearsal: VertexRehearsal) -> None:
    """The short way through everything; the whole suite of conformance belongs to the long tests."""
    stages: list[str] = []
    endpoint = rehearsal.backend.deploy(models.linear(), DeploymentSpec("churn"), on_progress=stages.append)
    assert any("billed" in stage for stage in stages)
    assert "Starting model server" in stages
    deployment = Deployment(endpoint, rehearsal.backend)
    answer = deployment.predict(ROWS)
    deployment.scale(Scale(1, 3, target_cpu=0.5))
    assert deployment.status().scale == Scale(1, 3, target_cpu=0.5)
    again = Deployment(rehearsal.backend.attach("churn"), rehearsal.backend)
    np.testing.assert_array_equal(again.predict(ROWS), answer)
    again.close()
    before = len(rehearsal.cloud.faults.calls)
    deploy(rehearsal).close()
    assert not {"UploadModel", "CreateEndpoint", "DeployModel"} & set(rehearsal.cloud.faults.calls[before:])
    deployment.update(models.linear(seed=1))
    assert not np.array_equal(deployment.predict(ROWS), answer)
    assert deployment.logs()
    deployment.delete()
    assert rehearsal.leftovers() == []
    assert unfinished("vertex") == {}


def test_replicas_that_never_come_up_are_told_with_the_end_of_their_log(rehearsal: VertexRehearsal) -> None:
    rehearsal.cloud.faults.switches = Switches(crash_at_start=True)
    with pytest.raises(StartError, match="no-such-setting"):
        deploy(rehearsal)
    assert rehearsal.leftovers() == []


@pytest.mark.long
def test_replicas_that_never_become_healthy_are_given_up_after_their_time(rehearse: Open) -> None:
    rehearsal = rehearse(container_timeout_s=4)
    rehearsal.cloud.faults.switches = Switches(never_healthy=True)
    with pytest.raises(StartError, match="never became healthy"):
        deploy(rehearsal)
    assert rehearsal.leftovers() == []


@pytest.mark.long
def test_a_stand_in_that_is_closed_waits_for_no_container(rehearse: Open) -> None:
    rehearsal = rehearse()
    rehearsal.cloud.faults.switches = Switches(never_healthy=True)
    deploy(rehearsal, wait=False).close()
    started = time.monotonic()
    rehearsal.close()
    assert time.monotonic() - started < 20


def test_a_quota_that_is_exceeded_is_named_and_leaves_nothing(rehearsal: VertexRehearsal) -> None:
    rehearsal.cloud.quota.cpus = 3
    with pytest.raises(QuotaError, match="CustomModelServingCPUsPerProjectPerRegion"):
        deploy(rehearsal, scale=Scale(1, 2, target_cpu=0.5))
    assert rehearsal.leftovers() == []


def test_a_region_without_machines_is_told_and_leaves_nothing(rehearsal: VertexRehearsal) -> None:
    rehearsal.cloud.faults.switches = Switches(replicas=0)
    with pytest.raises(QuotaError, match="out of stock"):
        deploy(rehearsal)
    assert rehearsal.leftovers() == []


@pytest.mark.long
def test_a_deploy_that_outlives_its_deadline_goes_on_and_the_next_call_waits_for_it(rehearsal: VertexRehearsal) -> None:
    rehearsal.cloud.faults.switches = Switches(start_delay_s=3)
    with pytest.raises(DeadlineError, match=r"goes on by itself, as .*/operations/\d+"):
        deploy(rehearsal, timeout_s=1)
    rehearsal.cloud.faults.clear()
    deployment = deploy(rehearsal)
    assert rehearsal.cloud.faults.calls.count("DeployModel") == 0
    assert deployment.predict(ROWS).shape == (2, 3)
    deployment.delete()
    assert rehearsal.leftovers() == []


@pytest.mark.long
def test_a_deploy_that_is_not_waited_for_is_starting_and_then_answers(rehearsal: VertexRehearsal) -> None:
    rehearsal.cloud.faults.switches = Switches(start_delay_s=1)
    deployment = deploy(rehearsal, wait=False)
    assert deployment.status().state is State.STARTING
    with pytest.raises(NotReadyError, match="Nothing is deployed"):
        deployment.predict(ROWS)
    deadline = time.monotonic() + 30
    while deployment.status().state is not State.READY:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert deployment.predict(ROWS).shape == (2, 3)


@pytest.mark.long
def test_a_failed_update_leaves_the_old_model_answering(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    answer, before = deployment.predict(ROWS), rehearsal.leftovers()
    rehearsal.cloud.faults.switches = Switches(crash_at_start=True)
    with pytest.raises(StartError):
        deployment.update(models.linear(seed=1))
    assert rehearsal.leftovers() == before
    np.testing.assert_array_equal(deployment.predict(ROWS), answer)


@pytest.mark.long
def test_an_update_keeps_to_its_first_share_for_a_while(rehearse: Open) -> None:
    rehearsal = rehearse(canary_percent=20)
    rehearsal.backend._options = rehearsal.backend._options.model_copy(update={"canary_hold_s": 2.0})
    deployment = deploy(rehearsal)
    old = deployment.predict(ROWS)
    updating = threading.Thread(target=deployment.update, args=(models.linear(seed=1),))
    updating.start()
    answers: Counter[bool] = Counter()
    while updating.is_alive():
        if deployment.status().state is State.UPDATING:
            answers[np.array_equal(deployment.predict(ROWS), old)] += 1
    updating.join()
    assert answers[True] > answers[False] > 0
    assert not np.array_equal(deployment.predict(ROWS), old)


class Asking:
    """Somebody who asks a deployment again and again, until the end of `with`."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.outcomes: Counter[str] = Counter()

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(0.01):
            try:
                self._ask()
                self.outcomes["answered"] += 1
            except ModelServeError as error:
                self.outcomes[error.code] += 1


@pytest.mark.long
def test_an_update_that_refuses_what_the_old_model_answers_is_taken_back(rehearse: Open) -> None:
    rehearsal = rehearse(canary_percent=50)
    rehearsal.backend._options = rehearsal.backend._options.model_copy(update={"canary_hold_s": 30.0})
    deployment, old = deploy(rehearsal, models.picky()), models.picky()
    before = rehearsal.leftovers()
    started = time.monotonic()
    with (
        Asking(lambda: deployment.predict(np.array([3]))) as asking,
        pytest.raises(StartError, match=r"refused \d+ of \d+ requests, the old one 0 of \d+"),
    ):
        deployment.update(models.picky(2))
    assert time.monotonic() - started < 30, "It is taken back at once, not when its time is over."
    assert asking.outcomes["model_run"] > 0
    assert rehearsal.leftovers() == before
    assert (deployment.status().state, deployment.status().digest) == (State.READY, old.digest)
    assert [deployment.predict(np.array([3])).tolist() for _ in range(20)] == [[3.0]] * 20


@pytest.mark.long
def test_an_update_goes_on_where_both_models_refuse_alike(rehearse: Open) -> None:
    rehearsal = rehearse(canary_percent=50)
    deployment = deploy(rehearsal, models.picky(2))
    with Asking(lambda: deployment.predict(np.array([3]))) as asking:
        deployment.update(models.picky(3))
    assert asking.outcomes["model_run"] > 20
    assert deployment.status().digest == models.picky(3).digest


@pytest.mark.long
def test_an_update_that_loses_its_replicas_is_taken_back(rehearse: Open) -> None:
    rehearsal = rehearse(canary_percent=20)
    rehearsal.backend._options = rehearsal.backend._options.model_copy(update={"canary_hold_s": 30.0})
    deployment = deploy(rehearsal)
    answer, before = deployment.predict(ROWS), rehearsal.leftovers()

    def lose(stage: str) -> None:
        if "of the traffic" in stage:
            rehearsal.cloud.faults.switches = Switches(crash_at_start=True)  # so that nothing comes in its place
            endpoint = rehearsal.cloud.endpoints.all[0]
            (new,) = [one for one, share in dict(endpoint.traffic_split).items() if share == 20]
            fleet = rehearsal.cloud.fleets.find(endpoint.name, new)
            assert fleet is not None
            fleet.kill_one()

    with pytest.raises(StartError, match="lost its replicas"):
        rehearsal.backend.deploy(models.linear(seed=1), DeploymentSpec("churn"), on_progress=lose)
    assert rehearsal.leftovers() == before
    assert deployment.status().state is State.READY
    np.testing.assert_array_equal(deployment.predict(ROWS), answer)


@pytest.mark.long
def test_an_update_that_nobody_could_watch_is_refused_before_it_is_deployed(rehearse: Open) -> None:
    rehearsal = rehearse(canary_percent=20)
    deployment = deploy(rehearsal)
    before = rehearsal.leftovers()
    rehearsal.cloud.neighbours.denied = {"monitoring.timeSeries.list"}
    with pytest.raises(AccessDeniedError, match=r"monitoring\.timeSeries\.list"):
        deployment.update(models.linear(seed=1))
    assert rehearsal.cloud.faults.calls.count("DeployModel") == 1
    assert rehearsal.leftovers() == before
    assert "monitoring.timeSeries.list" in rehearsal.backend.policy()["caller"]["includedPermissions"]


@pytest.mark.parametrize(
    ("new", "old", "wanted"),
    [
        ((0, 0), (100, 0), False),
        ((1, 1), (100, 0), True),
        ((200, 3), (1800, 0), False),
        ((200, 4), (1800, 0), True),
        ((100, 25), (900, 180), False),
        ((100, 40), (900, 180), True),
        ((100, 100), (900, 900), False),
        ((1, 1), (0, 0), False),
        ((1, 1), (1, 0), False),
        ((10, 10), (10, 0), True),
    ],
    ids=[
        "unseen",
        "at once",
        "within the margin",
        "beyond it",
        "by chance",
        "beyond chance",
        "alike",
        "nothing to compare with",
        "one of each",
        "ten of each",
    ],
)
def test_an_update_is_worse_where_neither_margin_nor_chance_explain_it(
    new: tuple[int, int], old: tuple[int, int], wanted: bool
) -> None:
    assert is_worse(Count(*new), Count(*old)) is wanted


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "psc", "psc_projects": ["other"]},
        {"endpoint": "private", "network": "projects/1/global/networks/n"},
    ],
)
def test_a_private_endpoint_answers_where_its_network_reaches_it(rehearse: Open, options: dict[str, Any]) -> None:
    rehearsal = rehearse(**options)
    deployment = deploy(rehearsal)
    np.testing.assert_array_equal(deployment.predict(ROWS), Session(models.linear()).run({"x": ROWS})["y"])
    deployment.delete()
    assert rehearsal.leftovers() == []


@pytest.mark.long
def test_an_endpoint_of_a_peered_network_refuses_a_second_model(rehearse: Open) -> None:
    rehearsal = rehearse(endpoint="private", network="projects/1/global/networks/n")
    deployment = deploy(rehearsal)
    before = rehearsal.leftovers()
    with pytest.raises(NotSupportedError, match="psc"):
        deployment.update(models.linear(seed=1))
    assert rehearsal.leftovers() == before


@pytest.mark.long
def test_an_answer_that_takes_longer_than_the_endpoint_allows_is_broken_off(rehearse: Open) -> None:
    rehearsal = rehearse(inference_timeout_s=1, environment={"MODELSERVE_SERVER_TIMEOUT_S": "60"})
    deploy(rehearsal, models.slow(20_000)).close()
    endpoint = rehearsal.cloud.endpoints.all[0]
    media_type, body = sized_request(encode_request({"x": np.ones((512, 128), np.float32)}), "y")
    answer = httpx.post(
        f"{rehearsal.url}/v1/{endpoint.name}:rawPredict",
        content=body,
        headers={"host": endpoint.dedicated_endpoint_dns, "content-type": media_type},
        timeout=30,
    )
    assert (answer.status_code, answer.json()["error"]["status"]) == (504, "DEADLINE_EXCEEDED")


@pytest.mark.long
def test_programs_that_serve_one_name_at_once_take_nothing_from_each_other(rehearsal: VertexRehearsal) -> None:
    def serve(_number: int) -> str:
        # Each with a backend of its own, as programs have.
        backend = VertexBackend(rehearsal.options)
        try:
            backend.deploy(models.linear(), DeploymentSpec("churn")).close()
        except OverloadedError as error:
            return f"refused: {error}"
        return "deployed"

    with ThreadPoolExecutor(3) as threads:
        outcomes = list(threads.map(serve, range(3)))
    assert "deployed" in outcomes
    assert serve(0) == "deployed"
    (status,) = rehearsal.backend.list()
    assert (status.state, len(status.replicas)) == (State.READY, 1)
    rehearsal.backend.delete("churn")
    assert rehearsal.leftovers() == []


def test_an_endpoint_of_somebody_else_is_neither_taken_nor_deleted(rehearsal: VertexRehearsal) -> None:
    foreign = v1.CreateEndpointRequest(
        parent="projects/demo/locations/europe-west4", endpoint_id="churn", endpoint={"display_name": "theirs"}
    )
    rehearsal.cloud.endpoints.create_endpoint(foreign)
    deadline = time.monotonic() + 10
    while not rehearsal.leftovers():
        assert time.monotonic() < deadline
    with pytest.raises(ConfigError, match="did not make"):
        deploy(rehearsal)
    rehearsal.backend.delete("churn")
    assert rehearsal.leftovers() == ["projects/demo/locations/europe-west4/endpoints/churn"]


@pytest.mark.long
def test_what_a_killed_program_left_is_listed_and_deleted_by_name(rehearsal: VertexRehearsal) -> None:
    deploy(rehearsal).close()
    endpoint = rehearsal.cloud.endpoints.all[0].name
    rehearsal.backend._target.resources.remove_endpoint(endpoint)
    (left,) = rehearsal.backend.list()
    assert (left.name, left.state) == ("churn", State.FAILED)
    rehearsal.backend.delete("churn")
    assert rehearsal.leftovers() == []
    assert rehearsal.backend.list() == []


@pytest.mark.long
def test_a_model_that_is_still_in_use_there_is_deleted_a_moment_later(rehearsal: VertexRehearsal) -> None:
    deployment = deploy(rehearsal)
    rehearsal.cloud.faults.plan("DeleteModel", Failing("FAILED_PRECONDITION", "The Model is deployed."), times=3)
    deployment.delete()
    assert rehearsal.leftovers() == []


@pytest.mark.long
def test_a_shared_endpoint_takes_less_and_larger_requests_are_split(rehearse: Open) -> None:
    rehearsal = rehearse(endpoint="shared")
    deployment = deploy(rehearsal)
    assert deployment.limits.request_bytes is not None
    assert deployment.limits.request_bytes < 1_500_000
    rows = np.ones((120_000, 4), np.float32)
    assert deployment.predict(rows).shape == (120_000, 3)
    assert rehearsal.cloud.faults.calls.count("RawPredict") > 1


@pytest.mark.long
def test_a_request_that_cannot_be_split_is_refused_before_it_is_sent(rehearse: Open) -> None:
    rehearsal = rehearse(endpoint="shared")
    deployment = deploy(rehearsal, models.joint())
    names = [spec.name for spec in deployment.signature.inputs]
    example = models.joint().example()
    large = {name: np.repeat(example[name], 400_000, axis=0) for name in names}
    with pytest.raises(InputError, match="cannot be split"):
        deployment.predict(large)
    assert rehearsal.cloud.faults.calls.count("RawPredict") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"machine_type": "ml.m5.large"}, "machine_type"),
        ({"labels": {"Team": "ML"}}, "labels"),
        ({"environment": {"AIP_X": "1"}}, "reserved"),
        (
            {"bucket": "demo-modelserve-europe-west4", "machine_type": "n1-highcpu-2", "workers": 64},
            "machine has|larger",
        ),
    ],
)
def test_a_pre_flight_refuses_before_anything_is_created(rehearse: Open, options: dict[str, Any], words: str) -> None:
    rehearsal = rehearse(**options)
    with pytest.raises(PreflightError, match=words):
        deploy(rehearsal)
    assert rehearsal.leftovers() == []
    assert not {"UploadModel", "CreateEndpoint"} & set(rehearsal.cloud.faults.calls)


def test_a_pre_flight_names_what_the_caller_may_not_do_and_the_bucket_that_is_missing(rehearse: Open) -> None:
    rehearsal = rehearse()
    rehearsal.cloud.neighbours.denied = {"aiplatform.endpoints.deploy"}
    rehearsal.cloud.objects.regions["demo-modelserve-europe-west4"] = "us-east1"
    found = rehearsal.backend.preflight(models.linear(), DeploymentSpec("churn"))
    refused = {one.name: one.text for one in found if one.verdict is Verdict.REFUSED}
    assert set(refused) == {"permissions", "bucket"}
    assert "aiplatform.endpoints.deploy" in refused["permissions"]
    assert "'us-east1'" in refused["bucket"]


def test_a_pre_flight_goes_on_where_a_check_may_not_be_made(rehearse: Open) -> None:
    rehearsal = rehearse()
    denied = Failing("PERMISSION_DENIED", "The API is not enabled.")
    for operation in ("projects.testIamPermissions", "storage.buckets.get"):
        rehearsal.cloud.faults.plan(operation, denied)
    found = rehearsal.backend.preflight(models.linear(), DeploymentSpec("churn"))
    assert [one.name for one in found if one.verdict is Verdict.SKIPPED] == ["permissions", "bucket"]
    assert not [one for one in found if one.verdict is Verdict.REFUSED]


@pytest.mark.long
def test_an_endpoint_keeps_its_kind_whatever_a_later_target_says(rehearse: Open) -> None:
    rehearsal = rehearse(endpoint="shared")
    deploy(rehearsal).close()
    other = VertexBackend({**rehearsal.options, "endpoint": "dedicated"})
    assert other.attach("churn").limits.request_bytes < 1_500_000
    with pytest.raises(NotSupportedError, match="of kind 'shared'"):
        other.deploy(models.linear(seed=1), DeploymentSpec("churn"))


def test_an_accelerator_needs_an_image_that_uses_it(rehearse: Open) -> None:
    rehearsal = rehearse(machine_type="g2-standard-4", accelerator_type="NVIDIA_L4")
    with pytest.raises(PreflightError, match="image="):
        deploy(rehearsal)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "region"),
        ({"region": "us"}, "one region"),
        ({"region": "europe-west4", "endpoint": "private"}, "network"),
        ({"region": "europe-west4", "psc_projects": ["p"]}, "psc"),
        ({"region": "europe-west4", "endpoint": "open"}, "endpoint"),
        ({"region": "europe-west4", "inference_timeout_s": 7200}, "inference_timeout_s"),
        ({"region": "europe-west4", "api_address": "10.0.0.1"}, "address"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VertexBackend(options)


def test_a_live_callable_is_refused_with_its_reason(rehearsal: VertexRehearsal) -> None:
    with pytest.raises(NotSupportedError, match="It is a test"):
        deploy(rehearsal, models.live("It is a test."))
