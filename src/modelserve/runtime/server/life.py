"""Where a server is in its life, and whether it should be sent requests."""

from __future__ import annotations

from enum import Enum

from modelserve.errors import ModelServeError
from modelserve.runtime.server.models.repository import Repository


class Phase(Enum):
    """From the first connection to the last answer."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Life:
    """The phase, and what makes a server unready in the meantime."""

    def __init__(self, repository: Repository) -> None:
        self.phase = Phase.STARTING
        self._repository = repository
        #: Why it is not ready, where loading the models at the start failed.
        self.failures: list[ModelServeError] = []

    def why_not_ready(self) -> str:
        """Empty when it is ready."""
        if self.phase is not Phase.READY:
            return f"the server is {self.phase.value}"
        if self.failures:
            return str(self.failures[0])
        for served in self._repository.served():
            if not served.is_ready:
                return f"model {served.name!r} has no worker at this moment"
        return ""
