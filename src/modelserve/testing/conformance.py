"""The suite that every backend passes: what the contract's verbs mean, tried for real.

    class TestLocal(BackendConformance):
        @pytest.fixture
        def place(self) -> Iterator[Place]:
            yield Place(LocalBackend({}), leftovers=...)

A test is skipped only by what the backend declares in `support`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from modelserve.backend import (
    CONTRACT_VERSION,
    Backend,
    Capability,
    DeploymentSpec,
    Request,
    Scale,
    Servable,
    State,
    Support,
    Verdict,
    translated,
)
from modelserve.bundle import Bundle
from modelserve.deployment import Deployment
from modelserve.errors import (
    ConfigError,
    DeadlineError,
    DeploymentClosedError,
    DeploymentNotFoundError,
    ModelRunError,
    ModelServeError,
    NotReadyError,
    NotSupportedError,
    StartError,
)
from modelserve.session import Session
from modelserve.tensors import Array, Tensors
from modelserve.testing import batch_jobs, models
from modelserve.testing.load import Load
from modelserve.testing.place import Place
from modelserve.wire import Message, encode_request

Serve: TypeAlias = Callable[..., Deployment]

_ROWS = np.random.default_rng(7).normal(size=(32, 4)).astype(np.float32)


class BackendConformance(batch_jobs.BatchConformance):
    """Inherit it, and give the fixture `place`."""

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError("A conformance suite needs a fixture 'place' that gives a Place.")

    @pytest.fixture(autouse=True)
    def own_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Bundles of a test lie in a folder of its own."""
        monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path / "modelserve-home"))

    @pytest.fixture
    def backend(self, place: Place) -> Backend:
        return place.backend

    @pytest.fixture
    def serve(self, backend: Backend) -> Iterator[Serve]:
        """Serves a model under a name of its own, and deletes it at the end."""
        made: list[Deployment] = []

        def serve(servable: Servable, *, name: str | None = None, replicas: int | None = None) -> Deployment:
            scale = None if replicas is None else Scale.fixed(replicas)
            spec = DeploymentSpec(name or f"conformance-{uuid.uuid4().hex[:12]}", scale)
            made.append(Deployment(backend.deploy(servable, spec), backend))
            return made[-1]

        yield serve
        for deployment in made:
            deployment.delete()

    def test_it_speaks_this_contract(self, backend: Backend) -> None:
        assert backend.contract_version == CONTRACT_VERSION
        assert backend.name
        assert set(backend.support) <= set(Capability)

    def test_every_option_says_what_it_means(self, backend: Backend) -> None:
        assert all(name.isidentifier() and line.strip() for name, line in backend.options.items())

    def test_an_unknown_option_is_refused_by_name(self, backend: Backend) -> None:
        with pytest.raises(ConfigError, match="no_such_option"):
            type(backend)({"no_such_option": 1})

    @pytest.mark.parametrize(
        "make", [models.linear, models.mlp, models.two_inputs, models.text, models.joint, models.picky]
    )
    def test_answers_are_the_sessions_bit_for_bit(self, serve: Serve, make: Callable[[], Bundle]) -> None:
        bundle = make()
        names = [spec.name for spec in bundle.signature.outputs]
        answers = serve(bundle).predict(bundle.example(), outputs=names)
        wanted = Session(bundle).run(bundle.example(), names)
        for name in names:
            _assert_same(answers[name], wanted[name])

    def test_the_primary_output_is_the_answer_when_none_is_named(self, serve: Serve) -> None:
        bundle = models.mlp()
        _assert_same(serve(bundle).predict(bundle.example()), Session(bundle).run(bundle.example())["label"])

    def test_one_row_needs_no_batch_axis(self, serve: Serve) -> None:
        bundle = models.linear()
        _assert_same(serve(bundle).predict(_ROWS[0]), _answer(bundle, _ROWS[:1])[0])

    def test_a_large_request_and_its_reply_travel_whole(self, serve: Serve) -> None:
        bundle = models.linear()
        rows = np.random.default_rng(1).normal(size=(200_000, 4)).astype(np.float32)
        np.testing.assert_allclose(serve(bundle).predict(rows), _answer(bundle, rows), rtol=1e-4, atol=1e-5)

    def test_answers_stay_what_they_were_when_others_follow(self, serve: Serve) -> None:
        deployment, bundle = serve(models.linear()), models.linear()
        answers = [deployment.predict(_ROWS[row : row + 1]) for row in range(len(_ROWS))]
        for row, answer in enumerate(answers):
            _assert_same(answer, _answer(bundle, _ROWS[row : row + 1]))

    def test_tasks_are_answered_each_with_its_own(self, serve: Serve) -> None:
        deployment, bundle = serve(models.linear()), models.linear()

        async def ask() -> Sequence[Array]:
            answers: Sequence[Array] = await asyncio.gather(
                *(deployment.apredict(_ROWS[row : row + 1]) for row in _indexes(64))
            )
            return answers

        for row, answer in zip(_indexes(64), asyncio.run(ask()), strict=True):
            _assert_close(answer, _answer(bundle, _ROWS[row : row + 1]))

    def test_threads_are_answered_each_with_its_own(self, serve: Serve) -> None:
        deployment, bundle = serve(models.linear()), models.linear()
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda row: deployment.predict(_ROWS[row : row + 1]), _indexes(200)))
        for row, answer in zip(_indexes(200), answers, strict=True):
            _assert_close(answer, _answer(bundle, _ROWS[row : row + 1]))

    def test_the_models_own_refusal_costs_only_its_request(self, serve: Serve) -> None:
        deployment = serve(models.picky())
        with pytest.raises(ModelRunError):
            deployment.predict(np.array([99]))
        assert deployment.predict(np.array([3, 0])).tolist() == [3.0, 0.0]

    def test_bytes_that_are_no_request_are_refused(self, serve: Serve) -> None:
        deployment = serve(models.linear())
        request = Request(Message(b'{"inputs":[]}', ()), 1, 10.0)
        with pytest.raises(ModelServeError):
            deployment._endpoint.submit(request).result()  # noqa: SLF001  # below what a deployment lets through
        assert deployment.predict(_ROWS).shape == (32, 3)

    def test_a_late_answer_is_a_deadline_error_and_the_next_is_answered(self, serve: Serve, place: Place) -> None:
        deployment = serve(models.slow(2_000))
        rows = np.ones((512, 128), np.float32)
        with pytest.raises(DeadlineError):
            deployment.predict(rows, timeout_s=0.05)
        assert deployment.predict(rows[:1], timeout_s=place.deadline_s).shape == (1, 128)

    def test_replicas_come_and_go_under_load_and_no_request_fails(self, serve: Serve, backend: Backend) -> None:
        _needs(backend, Capability.SCALE)
        bundle = models.linear()
        deployment, wanted = serve(bundle, replicas=1), _answer(bundle, _ROWS)
        with Load(lambda: _assert_close(deployment.predict(_ROWS), wanted)) as load:
            for replicas in (3, 1, 2, 1):
                load.wait_for(20)
                deployment.scale(replicas)
                states = [replica.state for replica in deployment.status().replicas]
                assert states.count(State.READY) == replicas, f"Asked for {replicas}, found {states}."
            load.wait_for(20)
        assert load.failures == []

    def test_a_range_of_replicas_is_kept(self, serve: Serve, place: Place) -> None:
        _needs(place.backend, Capability.AUTOSCALE)
        deployment = serve(models.linear())
        wanted = _ranged(deployment)
        assert deployment.status().scale == wanted
        assert deployment.predict(_ROWS).shape == (32, 3)

    def test_a_model_at_rest_wakes_for_a_request(self, serve: Serve, backend: Backend) -> None:
        _needs(backend, Capability.SCALE_TO_ZERO)
        deployment = serve(models.linear())
        deployment.scale(minimum=0, maximum=1)
        assert deployment.predict(_ROWS).shape == (32, 3)

    def test_a_model_rests_until_it_is_scaled_up_again(self, serve: Serve, backend: Backend) -> None:
        _needs(backend, Capability.REST)
        deployment, bundle = serve(models.linear()), models.linear()
        deployment.scale(0)
        assert (deployment.status().state, deployment.status().replicas) == (State.RESTING, ())
        with pytest.raises(NotReadyError):
            deployment.predict(_ROWS)
        deployment.scale(1)
        _assert_same(deployment.predict(_ROWS), _answer(bundle, _ROWS))

    def test_update_swaps_under_load_and_mixes_nothing(self, serve: Serve, backend: Backend) -> None:
        _needs(backend, Capability.UPDATE)
        old, new = models.linear(seed=0), models.linear(seed=1)
        deployment = serve(old, replicas=2 if _has(backend, Capability.SCALE) else None)
        before, after = _answer(old, _ROWS), _answer(new, _ROWS)

        def ask() -> None:
            answer = deployment.predict(_ROWS)
            assert np.allclose(answer, before, atol=1e-5) or np.allclose(answer, after, atol=1e-5), "A mixed answer."

        with Load(ask) as load:
            load.wait_for(20)
            deployment.update(new)
            _assert_close(deployment.predict(_ROWS), after)
            load.wait_for(20)
        assert load.failures == []
        assert deployment.status().digest == new.digest

    def test_status_names_the_model_that_runs(self, serve: Serve, backend: Backend) -> None:
        bundle = models.linear()
        deployment = serve(bundle)
        status = deployment.status()
        assert (status.name, status.backend, status.digest) == (deployment.name, backend.name, bundle.digest)
        assert status.state is State.READY
        assert status.replicas
        assert deployment.name in [listed.name for listed in backend.list()]

    def test_logs_are_lines(self, serve: Serve, backend: Backend) -> None:
        _needs(backend, Capability.LOGS)
        assert all(isinstance(line, str) and "\n" not in line for line in serve(models.linear()).logs())

    def test_a_second_deploy_of_the_same_model_changes_nothing(self, serve: Serve, backend: Backend) -> None:
        bundle = models.linear()
        first = serve(bundle)
        second = serve(bundle, name=first.name)
        assert [listed.name for listed in backend.list()].count(first.name) == 1
        _assert_same(first.predict(_ROWS), second.predict(_ROWS))

    def test_a_second_deploy_of_another_model_updates(self, serve: Serve, backend: Backend) -> None:
        _needs(backend, Capability.UPDATE)
        first, new = serve(models.linear(seed=0)), models.linear(seed=1)
        second = serve(new, name=first.name)
        assert second.status().digest == new.digest
        _assert_same(second.predict(_ROWS), _answer(new, _ROWS))

    def test_close_is_quiet_twice_and_no_call_follows_it(self, serve: Serve) -> None:
        deployment = serve(models.linear())
        endpoint = deployment._endpoint  # noqa: SLF001  # the endpoint must refuse by itself too
        deployment.close()
        deployment.close()
        endpoint.close()
        with pytest.raises(DeploymentClosedError):
            deployment.predict(_ROWS)
        with pytest.raises(DeploymentClosedError):
            endpoint.submit(_request(models.linear(), {"x": _ROWS})).result()

    def test_attach_finds_it_again_or_is_refused(self, serve: Serve, backend: Backend) -> None:
        bundle = models.linear()
        deployment = serve(bundle)
        if not _has(backend, Capability.ATTACH):
            with pytest.raises(NotSupportedError):
                backend.attach(deployment.name)
            return
        again = Deployment(backend.attach(deployment.name), backend)
        assert again.signature == bundle.signature
        _assert_same(again.predict(_ROWS), _answer(bundle, _ROWS))
        with pytest.raises(DeploymentNotFoundError, match="no-such-deployment"):
            backend.attach("no-such-deployment")

    def test_delete_leaves_nothing_and_is_quiet_twice(self, serve: Serve, place: Place) -> None:
        before = list(place.leftovers())
        deployment = serve(models.linear())
        deployment.delete()
        deployment.delete()
        assert list(place.leftovers()) == before
        assert deployment.name not in [listed.name for listed in place.backend.list()]

    def test_a_deploy_that_fails_half_way_leaves_nothing(self, place: Place) -> None:
        if place.half_failing is None:
            return
        before = list(place.leftovers())
        with place.half_failing(), pytest.raises(ModelServeError):
            place.backend.deploy(models.linear(), DeploymentSpec("half-failing"))
        assert list(place.leftovers()) == before

    def test_what_never_becomes_ready_is_told_and_leaves_nothing(self, place: Place) -> None:
        if place.failing_start is None:
            return
        before = list(place.leftovers())
        with place.failing_start(), pytest.raises(StartError):
            place.backend.deploy(models.linear(), DeploymentSpec("never-ready"))
        assert list(place.leftovers()) == before

    def test_delete_by_name_removes_what_another_program_made(self, serve: Serve, place: Place) -> None:
        _needs(place.backend, Capability.ATTACH)
        before = list(place.leftovers())
        deployment = serve(models.linear())
        deployment.close()
        place.backend.delete(deployment.name)
        place.backend.delete(deployment.name)
        assert list(place.leftovers()) == before

    def test_a_pre_flight_refuses_nothing_that_works_and_touches_nothing(self, place: Place) -> None:
        before = list(place.leftovers())
        findings = place.backend.preflight(models.linear(), DeploymentSpec("pre-flight"))
        assert [finding for finding in findings if finding.verdict is Verdict.REFUSED] == []
        assert list(place.leftovers()) == before

    def test_another_process_finds_it_and_gets_the_same_answers(self, serve: Serve, place: Place) -> None:
        if place.elsewhere is None:
            return
        bundle = models.linear()
        deployment = serve(bundle)
        program = (
            "import json, sys, modelserve\n"
            "with modelserve.attach(sys.argv[1], 'elsewhere') as deployment:\n"
            "    print(json.dumps(deployment.predict(json.load(sys.stdin)).tolist()))\n"
        )
        done = subprocess.run(  # noqa: S603  # our own program, by the path of this interpreter
            [sys.executable, "-c", program, deployment.name],
            input=json.dumps(_ROWS.tolist()),
            env={**os.environ, **place.elsewhere},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == _answer(bundle, _ROWS).tolist()

    def test_a_replica_that_dies_is_replaced_and_only_its_requests_fail(self, serve: Serve, place: Place) -> None:
        if place.kill_replica is None:
            return
        bundle = models.linear()
        replicas = 2 if _has(place.backend, Capability.SCALE) else None
        deployment, wanted = serve(bundle, replicas=replicas), _answer(bundle, _ROWS)
        count = len(deployment.status().replicas)
        with Load(lambda: _assert_close(deployment.predict(_ROWS), wanted), goes_on=True) as load:
            load.wait_for(20)
            place.kill_replica(deployment.name)
            _wait_for_ready(deployment, count, place.deadline_s)
            load.wait_for(20)
        assert all(isinstance(error, ModelServeError) for error in load.failures)
        assert len(load.failures) <= load.answered / 10

    def test_a_live_callable_is_served_or_refused_as_declared(self, serve: Serve, backend: Backend) -> None:
        live = models.live("It is a test.")
        if not _has(backend, Capability.LIVE_CALLABLE):
            with pytest.raises(NotSupportedError):
                serve(live)
            return
        assert serve(live).predict(np.ones((2, 2), np.float32)).tolist() == [[2, 2], [2, 2]]

    def test_every_vendor_error_is_one_of_ours(self, place: Place) -> None:
        unmapped = [error for error in place.vendor_errors if translated(place.error_table, error) is None]
        assert unmapped == []


def _has(backend: Backend, capability: Capability) -> bool:
    return backend.supports(capability) is Support.FULL


def _needs(backend: Backend, capability: Capability) -> None:
    if not _has(backend, capability):
        pytest.skip(f"{backend.name} declares {capability.value!r} {backend.supports(capability).value}")


def _ranged(deployment: Deployment) -> Scale:
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


def _wait_for_ready(deployment: Deployment, replicas: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while [replica.state for replica in deployment.status().replicas].count(State.READY) < replicas:
        assert time.monotonic() < deadline, f"Not {replicas} replicas again within {timeout_s} s."
        time.sleep(0.05)


def _answer(bundle: Bundle, rows: Array) -> Array:
    return Session(bundle).run({"x": rows})[bundle.signature.primary]


def _request(bundle: Bundle, tensors: Tensors) -> Request:
    return Request(encode_request(tensors), bundle.signature.check(tensors).rows, 10.0)


def _indexes(count: int) -> list[int]:
    return [index % len(_ROWS) for index in range(count)]


def _assert_same(answer: Array, wanted: Array) -> None:
    assert np.asarray(answer).dtype == np.asarray(wanted).dtype
    np.testing.assert_array_equal(answer, wanted)


def _assert_close(answer: Array, wanted: Array) -> None:
    # Requests that ran in one batch with others may differ from those alone in the last bits.
    np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-5)
