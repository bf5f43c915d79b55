"""A rehearsed Vertex AI for the tests of this backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelserve_vertex import VertexBackend
from modelserve_vertex.rehearsal import VertexRehearsal

OPTIONS = {"project": "demo", "region": "europe-west4", "workers": 1}


@pytest.fixture
def rehearsal() -> Iterator[VertexRehearsal]:
    with VertexBackend(OPTIONS).rehearsal() as found:
        assert isinstance(found, VertexRehearsal)
        yield found
