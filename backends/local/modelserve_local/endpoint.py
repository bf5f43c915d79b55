"""One model in local worker processes, held by whoever serves it under its name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NoReturn

from modelserve.backend import (
    Endpoint,
    EndpointStatus,
    Limits,
    ReplicaStatus,
    ReplyFuture,
    Request,
    Scale,
    Servable,
    State,
)
from modelserve.bundle import LiveCallable
from modelserve.errors import DeploymentClosedError, NotSupportedError
from modelserve.runtime import PoolSettings, WorkerPool, WorkerStatus
from modelserve.tensors import Signature

_DEFAULT_TARGET_INFLIGHT = 4.0


class Running:
    """What runs under one name in this process. It ends when the last who holds it lets go."""

    def __init__(self, name: str, servable: Servable, scale: Scale, settings: PoolSettings, why: str = "") -> None:
        self.name = name
        self.why = why
        self.scale = scale
        self.signature = servable.signature
        self.rows_independent = servable.rows_independent
        self.digest = servable.digest
        self.as_it_is = _as_it_is(servable)
        self.holds = 0
        self.pool = WorkerPool(servable, workers=scale.minimum, settings=settings)
        self._limits = Limits(timeout_s=settings.timeout_s)
        if not scale.is_fixed:
            self.resize(scale)

    def resize(self, scale: Scale) -> None:
        for unsupported in ("target_cpu", "target_requests_per_minute"):
            if unsupported in scale.targets:
                raise NotSupportedError(f"Local workers scale by target_inflight, not by {unsupported}.")
        if scale.is_fixed:
            self.pool.scale(scale.minimum)
        else:
            self.pool.autoscale(scale.minimum, scale.maximum, scale.target_inflight or _DEFAULT_TARGET_INFLIGHT)
        self.scale = scale

    @property
    def limits(self) -> Limits:
        """What one request may be, as the workers are now."""
        limits = self._limits
        split_rows, parallel = self.pool.split_rows, 2 * self.scale.maximum
        if limits.split_rows != split_rows or limits.parallel != parallel:
            self._limits = limits = replace(limits, split_rows=split_rows, parallel=parallel)
        return limits

    def swap(self, servable: Servable) -> None:
        self.pool.update(servable)
        self.signature = servable.signature
        self.rows_independent = servable.rows_independent
        self.digest = servable.digest
        self.as_it_is = _as_it_is(servable)


class LocalEndpoint(Endpoint):
    """One hold of what runs under a name.

    Args:
        ended: Told once when this hold lets go; ends what runs when it was the last, or when it `deletes`.
    """

    def __init__(self, running: Running, ended: Callable[[Running, bool], None]) -> None:
        self._running = running
        self._ended = ended
        self._pool = running.pool
        self._closed = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:  # type: ignore[override]  # what runs has one name, however many hold it
        return self._running.name

    @property
    def signature(self) -> Signature:  # type: ignore[override]  # as name
        return self._running.signature

    @property
    def rows_independent(self) -> bool:  # type: ignore[override]  # as name
        return self._running.rows_independent

    @property
    def limits(self) -> Limits:
        return self._running.limits

    def submit(self, request: Request) -> ReplyFuture:
        if self._closed:
            self._refuse()
        return self._pool.submit(request.message, request.rows, request.timeout_s)

    def scale(self, scale: Scale) -> None:
        self._check_open()
        self._running.resize(scale)

    def status(self) -> EndpointStatus:
        self._check_open()
        status = self._pool.status()
        state = State.FAILED if status.failure else State.READY if status.ready >= status.wanted else State.STARTING
        if not status.wanted:
            state = State.RESTING
        return EndpointStatus(
            name=self.name,
            backend="local",
            state=state,
            digest=status.digest,
            scale=self._running.scale,
            replicas=tuple(_replica(worker) for worker in status.workers),
            message=str(status.failure or self._running.as_it_is or self._running.why),
        )

    def update(self, servable: Servable) -> None:
        self._check_open()
        self._running.swap(servable)

    def logs(self) -> Iterable[str]:
        self._check_open()
        return self._pool.logs()

    def close(self) -> None:
        self._let_go(delete=False)

    def delete(self) -> None:
        self._let_go(delete=True)

    def _let_go(self, *, delete: bool) -> None:
        with self._lock:
            if self._closed and not delete:
                return
            held = not self._closed
            self._closed = True
        if held or delete:
            self._ended(self._running, delete)

    def _check_open(self) -> None:
        if self._closed:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise DeploymentClosedError(f"Deployment {self.name!r} was closed. Serve the model again.")


def _as_it_is(servable: Servable) -> str:
    return f"Runs as it is, in Python: {servable.reason}" if isinstance(servable, LiveCallable) else ""


def _replica(worker: WorkerStatus) -> ReplicaStatus:
    state = {"starting": State.STARTING, "ready": State.READY, "retiring": State.DRAINING}[worker.stage.value]
    details = {
        "pid": worker.pid,
        "stage": worker.stage.value,
        "runs": worker.runs,
        "rows": worker.rows,
        "private_bytes": worker.private_bytes,
        "shared_bytes": worker.shared_bytes,
    }
    return ReplicaStatus(f"worker-{worker.pid}", state, details)
