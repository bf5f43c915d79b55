"""What the local backend can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelserve.backend import Options

_MOST_WORKERS = 64


class LocalOptions(Options):
    """Options of a local target."""

    workers: Annotated[int, Field(ge=1, le=_MOST_WORKERS)] | Literal["auto"] | None = Field(
        None,
        description=(
            "Worker processes to start with; 'auto' tries a few settings of workers and threads for two seconds and "
            "takes the best. Default: as many as the usable processors have room for, at most 8."
        ),
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads within one operation of a worker. Default: OMP_NUM_THREADS where it is set, else 1.",
    )
    pin: bool = Field(
        False, description="Whether each worker keeps to processors of its own (Linux). Default: it does not."
    )
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
