"""The suite for replicas and versions: they come and go, and no request notices."""

from __future__ import annotations

import numpy as np
import pytest

from modelserve.backend import (
    Backend,
    Capability,
    State,
)
from modelserve.errors import (
    NotReadyError,
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
    ranged,
)
from modelserve.testing.load import Load
from modelserve.testing.place import Place


class ScalingConformance:
    """What a place keeps that declares to scale, to rest or to update."""

    def test_replicas_come_and_go_under_load_and_no_request_fails(self, serve: Serve, backend: Backend) -> None:
        needs(backend, Capability.SCALE)
        bundle = models.linear()
        deployment, wanted = serve(bundle, replicas=1), answer_of(bundle, ROWS)
        with Load(lambda: assert_close(deployment.predict(ROWS), wanted)) as load:
            for replicas in (3, 1, 2, 1):
                load.wait_for(20)
                deployment.scale(replicas)
                states = [replica.state for replica in deployment.status().replicas]
                assert states.count(State.READY) == replicas, f"Asked for {replicas}, found {states}."
            load.wait_for(20)
        assert load.failures == []

    def test_a_range_of_replicas_is_kept(self, serve: Serve, place: Place) -> None:
        needs(place.backend, Capability.AUTOSCALE)
        deployment = serve(models.linear())
        wanted = ranged(deployment)
        assert deployment.status().scale == wanted
        assert deployment.predict(ROWS).shape == (32, 3)

    def test_a_model_at_rest_wakes_for_a_request(self, serve: Serve, backend: Backend) -> None:
        needs(backend, Capability.SCALE_TO_ZERO)
        deployment = serve(models.linear())
        deployment.scale(minimum=0, maximum=1)
        assert deployment.predict(ROWS).shape == (32, 3)

    def test_a_model_rests_until_it_is_scaled_up_again(self, serve: Serve, backend: Backend) -> None:
        needs(backend, Capability.REST)
        deployment, bundle = serve(models.linear()), models.linear()
        deployment.scale(0)
        assert (deployment.status().state, deployment.status().replicas) == (State.RESTING, ())
        with pytest.raises(NotReadyError):
            deployment.predict(ROWS)
        deployment.scale(1)
        assert_same(deployment.predict(ROWS), answer_of(bundle, ROWS))

    def test_update_swaps_under_load_and_mixes_nothing(self, serve: Serve, backend: Backend) -> None:
        needs(backend, Capability.UPDATE)
        old, new = models.linear(seed=0), models.linear(seed=1)
        deployment = serve(old, replicas=2 if has(backend, Capability.SCALE) else None)
        before, after = answer_of(old, ROWS), answer_of(new, ROWS)

        def ask() -> None:
            answer = deployment.predict(ROWS)
            assert np.allclose(answer, before, atol=1e-5) or np.allclose(answer, after, atol=1e-5), "A mixed answer."

        with Load(ask) as load:
            load.wait_for(20)
            deployment.update(new)
            assert_close(deployment.predict(ROWS), after)
            load.wait_for(20)
        assert load.failures == []
        assert deployment.status().digest == new.digest
