"""A rehearsed Vertex AI for the tests of this backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelserve_vertex import VertexBackend
from modelserve_vertex.rehearsal import VertexRehearsal


@pytest.fixture
def options() -> dict[str, object]:
    return {"project": "demo", "region": "europe-west4", "workers": 1}


@pytest.fixture
def rehearsal(options: dict[str, object]) -> Iterator[VertexRehearsal]:
    with VertexBackend(options).rehearsal() as found:
        assert isinstance(found, VertexRehearsal)
        yield found
