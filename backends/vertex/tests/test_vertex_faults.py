"""Whatever call of a deploy goes wrong, and however: nothing that it made is left."""

from __future__ import annotations

import pytest

from modelserve.standin.faults import Failing
from modelserve.testing.fault_matrix import FaultMatrix
from modelserve.testing.place import Place
from modelserve_vertex.rehearsal import VertexRehearsal

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


class TestVertexFaults(FaultMatrix):
    refusal = Failing("INTERNAL", "Ordered by a test.", 500)

    @pytest.fixture
    def place(self, rehearsal: VertexRehearsal) -> Place:
        return Place(rehearsal.backend, leftovers=rehearsal.leftovers, faults=rehearsal.cloud.faults)
