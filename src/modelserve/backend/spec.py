"""What is asked of a place, and what it says of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from modelserve.errors import InvalidScaleError


@dataclass(frozen=True, slots=True)
class Scale:
    """How many replicas. `minimum == maximum` is a fixed size; a minimum of 0 rests until a request.

    0 and 0 rests until it is scaled up again.

    Attributes:
        target_inflight: Requests under way per replica to aim at, between minimum and maximum.
        target_cpu: Share of a replica's processors to aim at, 0 to 1.
        target_requests_per_minute: Requests per replica and minute to aim at.
    """

    minimum: int
    maximum: int
    target_inflight: float | None = None
    target_cpu: float | None = None
    target_requests_per_minute: float | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(count, int) and not isinstance(count, bool) for count in (self.minimum, self.maximum)):
            raise InvalidScaleError(f"Scale needs whole numbers, got {self.minimum!r}..{self.maximum!r}.")
        if not 0 <= self.minimum <= self.maximum:
            raise InvalidScaleError(f"Scale needs 0 <= minimum <= maximum, got {self.minimum}..{self.maximum}.")
        targets = self.targets
        if len(targets) > 1:
            raise InvalidScaleError(f"Scale takes one target, got {', '.join(targets)}.")
        for name, value in targets.items():
            if not _is_positive(value) or (name == "target_cpu" and value > 1):
                raise InvalidScaleError(
                    f"{name} must be above 0{' and at most 1' * (name == 'target_cpu')}, got {value!r}."
                )

    @property
    def targets(self) -> dict[str, float]:
        """The targets that are set, by name; at most one."""
        named = {
            "target_inflight": self.target_inflight,
            "target_cpu": self.target_cpu,
            "target_requests_per_minute": self.target_requests_per_minute,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def is_fixed(self) -> bool:
        return self.minimum == self.maximum

    @classmethod
    def fixed(cls, replicas: int) -> Scale:
        """Exactly this many."""
        return cls(replicas, replicas)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """What is asked of a place. `scale` of None leaves the number to the place.

    Attributes:
        timeout_s: Longest time that deploying may take.
        wait: Whether deploying returns only when the endpoint answers.
    """

    name: str
    scale: Scale | None = None
    timeout_s: float | None = None
    wait: bool = True


class State(Enum):
    """Where an endpoint is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    UPDATING = "updating"
    RESTING = "resting"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica. `details` are the place's own words (process id, private and shared bytes, instance id)."""

    name: str
    state: State
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint as its place sees it now."""

    name: str
    backend: str
    state: State
    digest: str
    scale: Scale | None
    replicas: tuple[ReplicaStatus, ...] = ()
    message: str = ""
