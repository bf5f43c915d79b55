"""Each call of a deploy fails in turn, in each way: whatever happens, nothing is left.

    class TestFaults(FaultMatrix):
        @pytest.fixture
        def place(self) -> Iterator[Place]:
            yield Place(backend, leftovers=..., faults=standin.faults)

The calls are those that a deploy without faults makes; a new one is tried without being named here.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from modelserve.backend import DeploymentSpec
from modelserve.errors import ModelServeError
from modelserve.standin.faults import Failing, Fault, Faults, Interrupted, LostAnswer, Throttled
from modelserve.testing import models
from modelserve.testing.place import Place

_NAME = "fault-matrix"


class FaultMatrix:
    """Inherit it, and give the fixture `place`, whose `faults` are the stand-in's.

    Attributes:
        refusal: An error that the cloud gives to any call, in its own words.
        most: How often the same operation is tried; a deploy that polls calls one as often as it has time for.
    """

    refusal = Failing("InternalFailure", "Ordered by a test.", 500)
    most = 2

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError("A fault matrix needs a fixture 'place' that gives a Place.")

    @pytest.fixture(autouse=True)
    def own_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Journals of a test lie in a folder of its own."""
        monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path / "modelserve-home"))

    def test_a_deploy_any_of_whose_calls_is_refused_leaves_nothing(self, place: Place) -> None:
        self._each_call_meets(place, self.refusal)

    def test_a_deploy_any_of_whose_calls_is_throttled_leaves_nothing(self, place: Place) -> None:
        self._each_call_meets(place, Throttled())

    def test_a_deploy_any_of_whose_answers_is_lost_leaves_nothing(self, place: Place) -> None:
        self._each_call_meets(place, LostAnswer())

    def test_a_deploy_interrupted_at_any_call_leaves_nothing(self, place: Place) -> None:
        self._each_call_meets(place, Interrupted())

    def _each_call_meets(self, place: Place, fault: Fault) -> None:
        faults = place.faults
        assert faults is not None, "A fault matrix needs a place with faults."
        before = list(place.leftovers())
        calls = self._calls(place, faults)
        assert calls, "A deploy calls nothing."
        wrong: list[str] = []
        for operation, nth in calls:
            faults.clear()
            faults.plan(operation, fault, nth=nth)
            outcome = self._deployed(place)
            faults.clear()
            if outcome == "deployed":
                place.backend.delete(_NAME)
            left = [one for one in place.leftovers() if one not in before]
            if left or not outcome:
                wrong.append(f"{operation} ({nth}): {outcome or 'a foreign error'}, left: {left}")
                place.backend.delete(_NAME)
        assert wrong == []

    def _calls(self, place: Place, faults: Faults) -> list[tuple[str, int]]:
        """The operations of a deploy in their order, each with how often it was called by then."""
        faults.clear()
        place.backend.deploy(models.linear(), DeploymentSpec(_NAME)).close()
        called: list[tuple[str, int]] = []
        seen: Counter[str] = Counter()
        for operation in list(faults.calls):
            seen[operation] += 1
            if seen[operation] <= self.most:
                called.append((operation, seen[operation]))
        place.backend.delete(_NAME)
        return called

    def _deployed(self, place: Place) -> str:
        """How a deploy ended; empty where it was with an error that is none of ours."""
        try:
            place.backend.deploy(models.linear(), DeploymentSpec(_NAME)).close()
        except ModelServeError as error:
            return f"refused ({error.code})"
        except KeyboardInterrupt:
            return "interrupted"
        except Exception:  # noqa: BLE001  # told with the call that met it
            return ""
        return "deployed"
