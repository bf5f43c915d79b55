"""The suite that every backend passes: what the contract's verbs mean, tried for real.

    class TestLocal(BackendConformance):
        @pytest.fixture
        def place(self) -> Iterator[Place]:
            yield Place(LocalBackend({}), leftovers=...)

A test is skipped only by what the backend declares in `support`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserve.backend import CONTRACT_VERSION, Backend, Capability, DeploymentSpec, Scale, Servable, translated
from modelserve.deployment import Deployment
from modelserve.errors import ConfigError
from modelserve.testing.conformance.answers import AnswersConformance
from modelserve.testing.conformance.batch import BatchConformance
from modelserve.testing.conformance.comparing import Serve
from modelserve.testing.conformance.life import LifeConformance
from modelserve.testing.conformance.scaling import ScalingConformance
from modelserve.testing.place import Place

__all__ = ["BackendConformance"]


class BackendConformance(AnswersConformance, ScalingConformance, LifeConformance, BatchConformance):
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

    def test_every_vendor_error_is_one_of_ours(self, place: Place) -> None:
        unmapped = [error for error in place.vendor_errors if translated(place.error_table, error) is None]
        assert unmapped == []
