"""How a pool behaves, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from modelserve.errors import ModelServeError
from modelserve.runtime.member import Stage


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker process. Memory in bytes, None where the platform does not tell."""

    pid: int | None
    stage: Stage
    runs: int
    rows: int
    private_bytes: int | None
    shared_bytes: int | None


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool as it is now. `restarts` counts workers that died and were replaced."""

    digest: str
    wanted: int
    ready: int
    inflight: int
    restarts: int
    workers: tuple[WorkerStatus, ...]
    failure: ModelServeError | None = None


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How a pool behaves.

    Attributes:
        threads: Threads within one operation of a worker. With 1, workers are forked from one that has the model.
        latency_budget_s: How long a request may be held back, while there is load, so that more share a run.
        timeout_s: Longest time that one run of the model may take, and a request by default.
        pin: Whether each worker keeps to processors of its own (where the platform can).
        max_inflight: Requests under way at once; more are refused with `OverloadedError`.
        max_bytes: Memory for requests and answers under way; None takes a quarter of what the machine has.
        start: "auto", "zygote" (Linux) or "spawn".
        drain_s: How long a worker that is let go may take to finish.
        start_timeout_s: How long the first workers may take until all of them are ready.
    """

    threads: int = 1
    latency_budget_s: float = 0.0
    timeout_s: float = 60.0
    pin: bool = False
    max_inflight: int = 8192
    max_bytes: int | None = None
    start: str = "auto"
    drain_s: float = 30.0
    start_timeout_s: float = 120.0
