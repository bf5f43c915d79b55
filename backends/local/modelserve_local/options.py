"""What the local backend can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelserve.backend import Options

_MOST_WORKERS = 64


class LocalOptions(Options):
    """Options of a local target."""

    workers: int | None = Field(
        None,
        ge=1,
        le=_MOST_WORKERS,
        description="Worker processes to start with. Default: one for each usable processor, at most 4.",
    )
    threads: int = Field(1, ge=1, le=256, description="Threads within one operation of a worker. Default: 1.")
    latency_budget_ms: float = Field(
        0.0,
        ge=0,
        le=10_000,
        description=(
            "How many milliseconds a request may be held back, while there is load, so that more requests share a "
            "run. A request that finds a worker at rest never waits. Default: 0."
        ),
    )
    timeout_s: float = Field(
        60.0, gt=0, description="Longest time that one run of the model may take, in seconds. Default: 60."
    )
    max_inflight: int = Field(
        8192, ge=1, description="Requests under way at once; more are refused as overload. Default: 8192."
    )
    start: Literal["auto", "zygote", "spawn"] = Field(
        "auto",
        description=(
            "How workers start: 'zygote' forks them from one process that has loaded the model (Linux), "
            "'spawn' starts each by itself, 'auto' takes the first that works here. Default: 'auto'."
        ),
    )
