"""The project's quota in the region: what all deployed models could grow to, counted as the service counts it."""

from __future__ import annotations

import threading
from typing import Any

from google.api_core import exceptions as google_errors

_CPUS = "CustomModelServingCPUsPerProjectPerRegion"
_ACCELERATORS = "CustomModelServing{}GPUsPerProjectPerRegion"
_MANY = 10**6


class Quota:
    """What is in use.

    Attributes:
        cpus: Processors that all replicas together may have, at their maximum.
        accelerators: The same for accelerators, of each kind.
    """

    def __init__(self) -> None:
        self.cpus = _MANY
        self.accelerators = _MANY
        self._lock = threading.Lock()
        self._used: dict[tuple[str, str], tuple[int, str, int]] = {}

    def take(self, endpoint: str, deployed: Any) -> None:
        """Note what a deployed model may use from now on.

        Raises:
            ResourceExhausted: it is more than the project may.
        """
        resources = deployed.dedicated_resources
        machine = resources.machine_spec
        most = max(resources.max_replica_count, resources.min_replica_count, 1)
        kind = machine.accelerator_type.name if machine.accelerator_type else ""
        wanted = (most * processors(machine.machine_type), kind, most * machine.accelerator_count)
        with self._lock:
            others = [used for key, used in self._used.items() if key != (endpoint, deployed.id)]
            if wanted[0] + sum(used[0] for used in others) > self.cpus:
                raise _exceeded(_CPUS)
            if wanted[2] + sum(used[2] for used in others if used[1] == kind) > self.accelerators:
                raise _exceeded(_ACCELERATORS.format("".join(part.capitalize() for part in kind.split("_"))))
            self._used[endpoint, deployed.id] = wanted

    def give_back(self, endpoint: str, deployed_id: str) -> None:
        with self._lock:
            self._used.pop((endpoint, deployed_id), None)


def processors(machine_type: str) -> int:
    """How many a machine has, by its name: n1-standard-4 has 4."""
    last = machine_type.rpartition("-")[2]
    return int(last) if last.isdecimal() else 1


def _exceeded(quota: str) -> google_errors.ResourceExhausted:
    return google_errors.ResourceExhausted(f"The following quotas are exceeded: {quota}")
