"""Somebody follows autoscale settings at the rehearsed Azure: the number of instances goes with the metric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from modelserve.backend import DeploymentSpec, Scale
from modelserve.deployment import Deployment
from modelserve.standin.load import Load
from modelserve.testing import models
from modelserve_azureml import AzureMLBackend, autoscale
from modelserve_azureml.rehearsal.autoscaling import ruled
from modelserve_azureml.rehearsal.cloud import AzureRehearsal

_PACE = 150.0
_LONGEST_S = 60.0


@pytest.fixture
def hurried(azure: AzureRehearsal) -> Iterator[AzureRehearsal]:
    """Azure Monitor with minutes of 0.4 seconds."""
    azure.autoscaling.pace = _PACE
    yield azure
    azure.autoscaling.pace = 1.0


def rules(scale: Scale) -> Any:
    return autoscale.setting("/d", "/e", "r", scale, 1, {})["properties"]["profiles"][0]["rules"]


@pytest.mark.parametrize(
    ("capacity", "percent", "wanted"),
    [(1, 90.0, 2), (1, 50.0, 1), (1, 1.0, 1), (2, 61.0, 3), (2, 29.0, 1), (3, 31.0, 3), (4, None, 4)],
)
def test_rules_by_the_processors_give_and_take_instances(capacity: int, percent: float | None, wanted: int) -> None:
    assert ruled(rules(Scale(1, 9, target_cpu=0.6)), capacity, lambda _trigger: percent) == wanted


@pytest.mark.parametrize(("capacity", "requests", "wanted"), [(1, 11.0, 2), (2, 11.0, 2), (2, 9.0, 1), (2, 19.0, 2)])
def test_rules_by_requests_are_for_each_instance(capacity: int, requests: float, wanted: int) -> None:
    scale = Scale(1, 9, target_requests_per_minute=10)
    assert ruled(rules(scale), capacity, lambda _trigger: requests) == wanted


def test_nothing_goes_that_would_have_to_come_back_at_once() -> None:
    own = rules(Scale(1, 9, target_requests_per_minute=10))
    own[1]["metricTrigger"]["threshold"] = 9.0  # near the other one: one instance fewer would call for one more
    assert ruled(own, 2, lambda _trigger: 16.0) == 2
    assert ruled(own, 2, lambda _trigger: 9.0) == 1


def served(azure: AzureRehearsal, bundle: Any, scale: Scale) -> Deployment:
    backend = AzureMLBackend(azure.options)
    return Deployment(backend.deploy(bundle, DeploymentSpec("followed", scale)), backend)


def seen_until(deployment: Deployment, is_over: Callable[[int], bool]) -> set[int]:
    """The numbers of instances until one is as it should be."""
    seen: set[int] = set()
    end = time.monotonic() + _LONGEST_S
    while time.monotonic() < end:
        count = len(deployment.status().replicas)
        seen.add(count)
        if is_over(count):
            return seen
        time.sleep(0.1)
    raise AssertionError(f"Only {seen} instances were seen within {_LONGEST_S} s.")


@pytest.mark.long
@pytest.mark.timeout(240)
def test_instances_come_and_go_with_the_requests_and_stay_within_the_bounds(hurried: AzureRehearsal) -> None:
    deployment = served(hurried, models.linear(), Scale(1, 3, target_requests_per_minute=2))
    x = models.linear().example()["x"]
    with Load(lambda: deployment.predict(x)) as load:
        load.wait_for(1)
        assert seen_until(deployment, lambda count: count == 3) <= {1, 2, 3}
        began = time.monotonic()
        while time.monotonic() - began < 5.0:  # there is load for many more, and time for two more
            assert len(deployment.status().replicas) == 3
            time.sleep(0.2)
    assert load.failures == []
    assert seen_until(deployment, lambda count: count == 1) <= {1, 2, 3}
    np.testing.assert_array_equal(deployment.predict(x).shape, (len(x), 3))


@pytest.mark.long
@pytest.mark.timeout(240)
def test_instances_come_with_the_work_of_the_processors_and_go_without(hurried: AzureRehearsal) -> None:
    deployment = served(hurried, models.slow(400), Scale(1, 2, target_cpu=0.15))
    some = np.ones((64, 128), np.float32)
    with Load(lambda: deployment.predict(some)) as load:
        seen_until(deployment, lambda count: count == 2)
    assert load.failures == []
    assert seen_until(deployment, lambda count: count == 1) <= {1, 2}


@pytest.mark.long
@pytest.mark.timeout(240)
def test_bounds_that_are_changed_are_kept_at_once_and_a_fixed_number_is_left_alone(hurried: AzureRehearsal) -> None:
    deployment = served(hurried, models.linear(), Scale(1, 2, target_cpu=0.9))
    deployment.scale(minimum=2, maximum=3, target_cpu=0.9)
    assert len(deployment.status().replicas) == 2
    deployment.scale(3)
    began = time.monotonic()
    while time.monotonic() - began < 4.0:
        assert len(deployment.status().replicas) == 3
        time.sleep(0.2)
