"""What the suites compare with, and wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest

from modelserve.backend import (
    Backend,
    Capability,
    Request,
    Scale,
    State,
    Support,
)
from modelserve.bundle import Bundle
from modelserve.deployment import Deployment
from modelserve.errors import (
    NotSupportedError,
)
from modelserve.session import Session
from modelserve.tensors import Array, Tensors
from modelserve.wire import encode_request

Serve: TypeAlias = Callable[..., Deployment]

ROWS = np.random.default_rng(7).normal(size=(32, 4)).astype(np.float32)


def has(backend: Backend, capability: Capability) -> bool:
    """Whether a backend has it in full."""
    return backend.supports(capability) is Support.FULL


def needs(backend: Backend, capability: Capability) -> None:
    """Skip the test where a backend does not declare it."""
    if not has(backend, capability):
        pytest.skip(f"{backend.name} declares {capability.value!r} {backend.supports(capability).value}")


def ranged(deployment: Deployment) -> Scale:
    """A range of replicas with the first target that the place takes; the others are refused with what it takes."""
    refusals: list[str] = []
    targets = {"target_inflight": 4.0, "target_cpu": 0.5, "target_requests_per_minute": 100.0}
    for name, value in targets.items():
        wanted = Scale(1, 2, **{name: value})
        try:
            deployment.scale(wanted)
        except NotSupportedError as error:
            refusals.append(str(error))
            continue
        assert all(name in refusal for refusal in refusals), "A refusal must name the targets that are taken."
        return wanted
    assert all("without a target" in refusal for refusal in refusals), "It declares autoscale and takes no target."
    deployment.scale(Scale(1, 2))
    return Scale(1, 2)


def wait_for_ready(deployment: Deployment, replicas: int, timeout_s: float) -> None:
    """Wait until so many replicas answer."""
    deadline = time.monotonic() + timeout_s
    while [replica.state for replica in deployment.status().replicas].count(State.READY) < replicas:
        assert time.monotonic() < deadline, f"Not {replicas} replicas again within {timeout_s} s."
        time.sleep(0.05)


def answer_of(bundle: Bundle, rows: Array) -> Array:
    """The session's own answer."""
    return Session(bundle).run({"x": rows})[bundle.signature.primary]


def request_of(bundle: Bundle, tensors: Tensors) -> Request:
    """A request as a deployment would send it."""
    return Request(encode_request(tensors), bundle.signature.check(tensors).rows, 10.0)


def indexes(count: int) -> list[int]:
    """Numbers of rows, over and over."""
    return [index % len(ROWS) for index in range(count)]


def assert_same(answer: Array, wanted: Array) -> None:
    """Bit for bit, and of one dtype."""
    assert np.asarray(answer).dtype == np.asarray(wanted).dtype
    np.testing.assert_array_equal(answer, wanted)


def assert_close(answer: Array, wanted: Array) -> None:
    """Alike up to the last bits."""
    # Requests that ran in one batch with others may differ from those alone in the last bits.
    np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-5)
