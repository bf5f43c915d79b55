"""The suite for a deployment's life: made, found again, closed, deleted, and nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from modelserve.backend import (
    Backend,
    Capability,
    DeploymentSpec,
    State,
    Verdict,
)
from modelserve.deployment import Deployment
from modelserve.errors import (
    DeploymentClosedError,
    DeploymentNotFoundError,
    ModelServeError,
    NotSupportedError,
    StartError,
)
from modelserve.testing import models
from modelserve.testing.conformance.comparing import (
    ROWS,
    Serve,
    answer_of,
    assert_close,
    assert_same,
    has,
    needs,
    request_of,
    wait_for_ready,
)
from modelserve.testing.load import Load
from modelserve.testing.place import Place


class LifeConformance:
    """What every place keeps from deploy to delete."""

    def test_status_names_the_model_that_runs(self, serve: Serve, backend: Backend) -> None:
        bundle = models.linear()
        deployment = serve(bundle)
        status = deployment.status()
        assert (status.name, status.backend, status.digest) == (deployment.name, backend.name, bundle.digest)
        assert status.state is State.READY
        assert status.replicas
        assert deployment.name in [listed.name for listed in backend.list()]

    def test_logs_are_lines(self, serve: Serve, backend: Backend) -> None:
        needs(backend, Capability.LOGS)
        assert all(isinstance(line, str) and "\n" not in line for line in serve(models.linear()).logs())

    def test_a_second_deploy_of_the_same_model_changes_nothing(self, serve: Serve, backend: Backend) -> None:
        bundle = models.linear()
        first = serve(bundle)
        second = serve(bundle, name=first.name)
        assert [listed.name for listed in backend.list()].count(first.name) == 1
        assert_same(first.predict(ROWS), second.predict(ROWS))

    def test_a_second_deploy_of_another_model_updates(self, serve: Serve, backend: Backend) -> None:
        needs(backend, Capability.UPDATE)
        first, new = serve(models.linear(seed=0)), models.linear(seed=1)
        second = serve(new, name=first.name)
        assert second.status().digest == new.digest
        assert_same(second.predict(ROWS), answer_of(new, ROWS))

    def test_close_is_quiet_twice_and_no_call_follows_it(self, serve: Serve) -> None:
        deployment = serve(models.linear())
        endpoint = deployment._endpoint  # noqa: SLF001  # the endpoint must refuse by itself too
        deployment.close()
        deployment.close()
        endpoint.close()
        with pytest.raises(DeploymentClosedError):
            deployment.predict(ROWS)
        with pytest.raises(DeploymentClosedError):
            endpoint.submit(request_of(models.linear(), {"x": ROWS})).result()

    def test_attach_finds_it_again_or_is_refused(self, serve: Serve, backend: Backend) -> None:
        bundle = models.linear()
        deployment = serve(bundle)
        if not has(backend, Capability.ATTACH):
            with pytest.raises(NotSupportedError):
                backend.attach(deployment.name)
            return
        again = Deployment(backend.attach(deployment.name), backend)
        assert again.signature == bundle.signature
        assert_same(again.predict(ROWS), answer_of(bundle, ROWS))
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
        needs(place.backend, Capability.ATTACH)
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
            input=json.dumps(ROWS.tolist()),
            env={**os.environ, **place.elsewhere},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == answer_of(bundle, ROWS).tolist()

    def test_a_replica_that_dies_is_replaced_and_only_its_requests_fail(self, serve: Serve, place: Place) -> None:
        if place.kill_replica is None:
            return
        bundle = models.linear()
        replicas = 2 if has(place.backend, Capability.SCALE) else None
        deployment, wanted = serve(bundle, replicas=replicas), answer_of(bundle, ROWS)
        count = len(deployment.status().replicas)
        with Load(lambda: assert_close(deployment.predict(ROWS), wanted), goes_on=True) as load:
            load.wait_for(20)
            place.kill_replica(deployment.name)
            wait_for_ready(deployment, count, place.deadline_s)
            load.wait_for(20)
        assert all(isinstance(error, ModelServeError) for error in load.failures)
        assert len(load.failures) <= load.answered / 10

    def test_a_live_callable_is_served_or_refused_as_declared(self, serve: Serve, backend: Backend) -> None:
        live = models.live("It is a test.")
        if not has(backend, Capability.LIVE_CALLABLE):
            with pytest.raises(NotSupportedError):
                serve(live)
            return
        assert serve(live).predict(np.ones((2, 2), np.float32)).tolist() == [[2, 2], [2, 2]]
