"""Whatever call of a deploy goes wrong, and however: nothing that it made is left."""

from __future__ import annotations

import pytest

from modelserve.backend import DeploymentSpec, Endpoint, WorkPart
from modelserve.errors import ModelServeError
from modelserve.standin.faults import Failing, Fault, Faults, Interrupted, LostAnswer, Throttled
from modelserve.testing import models
from modelserve.testing.fault_matrix import FaultMatrix
from modelserve.testing.place import Place
from modelserve_vertex.rehearsal import VertexRehearsal

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


class TestVertexFaults(FaultMatrix):
    refusal = Failing("INTERNAL", "Ordered by a test.", 500)

    @pytest.fixture
    def place(self, rehearsal: VertexRehearsal) -> Place:
        return Place(rehearsal.backend, leftovers=rehearsal.leftovers, faults=rehearsal.cloud.faults)

    @pytest.mark.parametrize(
        "fault", [refusal, Throttled(), LostAnswer(), Interrupted()], ids=lambda one: one.__class__.__name__
    )
    def test_a_batch_job_any_of_whose_calls_goes_wrong_leaves_nothing(self, place: Place, fault: Fault) -> None:
        """Or the job itself, where the call was made in spite of it."""
        assert place.faults is not None
        endpoint = place.backend.deploy(models.linear(), DeploymentSpec("fault-matrix"))
        before, wrong = list(place.leftovers()), []
        for operation, nth in _calls(place.faults, endpoint):
            place.faults.clear()
            place.faults.plan(operation, fault, nth=nth)
            outcome = _begun(endpoint)
            place.faults.clear()
            left = [one for one in place.leftovers() if one not in before]
            if left or not outcome:
                wrong.append(f"{operation} ({nth}): {outcome or 'a foreign error'}, left: {left}")
        assert wrong == []


def _calls(faults: Faults, endpoint: Endpoint) -> list[tuple[str, int]]:
    """The operations of beginning a job, each with how often it was called by then."""
    faults.clear()
    job = endpoint.batch("some-work", _parts())
    called = list(faults.calls)
    job.delete()
    assert "CreateBatchPredictionJob" in called
    return [
        (one, called[: at + 1].count(one))
        for at, one in enumerate(called)
        if not one.startswith("BatchRequest") and called[: at + 1].count(one) <= FaultMatrix.most
    ]


def _begun(endpoint: Endpoint) -> str:
    """How beginning a job ended; empty where it was with an error that is none of ours."""
    try:
        endpoint.batch("some-work", _parts()).delete()
    except ModelServeError as error:
        return f"refused ({error.code})"
    except KeyboardInterrupt:
        return "interrupted"
    except Exception:  # noqa: BLE001  # told with the call that met it
        return ""
    return "begun"


def _parts() -> list[WorkPart]:
    return [
        WorkPart(number, b'{"$row":[%d,0],"inputs":{"x":[1,2,3,4]},"outputs":["y"]}\n' % number) for number in (0, 1)
    ]
