"""A backend in this process: real bytes, real answers, real errors, and switches for what can go wrong.

    submit(bytes) ──► threads, one a replica ──► decode ─ Session.run ─ encode ──► bytes

It behaves as a cloud does: an endpoint goes on after `close`, and is found again by name until it is deleted.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any, ClassVar

from modelserve import wire
from modelserve.backend import (
    Backend,
    Capability,
    DeploymentSpec,
    Endpoint,
    EndpointStatus,
    Job,
    Limits,
    ReplicaStatus,
    Reply,
    ReplyFuture,
    Request,
    Scale,
    Servable,
    State,
    Support,
    WorkPart,
)
from modelserve.errors import (
    ConfigError,
    DeadlineError,
    DeploymentClosedError,
    DeploymentNotFoundError,
    ModelServeError,
    WireError,
)
from modelserve.session import Runner, open_session
from modelserve.tensors import Signature
from modelserve.testing.memory_job import MemoryJob


class MemoryCloud:
    """What all backends of one place share: what runs there, and what is to go wrong next.

    Attributes:
        limits: What one request may be.
        gate: Requests wait for it before they run; clear it to hold them up.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits(parallel=4)
        self.jobs: dict[str, MemoryJob] = {}
        self.running: dict[str, _Running] = {}
        self.gate = threading.Event()
        self.gate.set()
        self._faults: dict[str, deque[ModelServeError]] = defaultdict(deque)

    def fail_next(self, verb: str, *errors: ModelServeError) -> None:
        """Let the next calls of `verb` raise these, one each: deploy, run, scale, update, batch, job or delete."""
        self._faults[verb].extend(errors)

    def check(self, verb: str) -> None:
        """Raise what was ordered for `verb`, if anything."""
        if self._faults[verb]:
            raise self._faults[verb].popleft()

    def clear(self) -> None:
        """Remove everything that runs."""
        for name in list(self.running):
            self.running.pop(name).stop()


class InMemoryBackend(Backend):
    """Runs models in this process; `cloud` is what all instances of a class share."""

    name = "memory"
    support: ClassVar[Mapping[Capability, Support]] = {
        Capability.SCALE: Support.FULL,
        Capability.AUTOSCALE: Support.FULL,
        Capability.UPDATE: Support.FULL,
        Capability.ATTACH: Support.FULL,
        Capability.LOGS: Support.FULL,
        Capability.LIVE_CALLABLE: Support.FULL,
        Capability.BATCH: Support.FULL,
        Capability.REHEARSAL: Support.IMPOSSIBLE,
    }
    options: ClassVar[Mapping[str, str]] = {
        "workers": "Number of threads that answer.",
        "region": "A word that changes nothing.",
        "token": "A secret that changes nothing.",
    }
    cloud: ClassVar[MemoryCloud] = MemoryCloud()

    def __init__(self, options: Mapping[str, Any]) -> None:
        for name in options:
            if name not in self.options:
                raise ConfigError(f"Backend 'memory' has no option {name!r}; it has {', '.join(self.options)}.")
        workers = options.get("workers", 1)
        if not isinstance(workers, int) or workers < 1:
            raise ConfigError(f"workers must be a whole number from 1 up, got {workers!r}.")
        self._workers = workers

    def deploy(
        self, servable: Servable, spec: DeploymentSpec, *, on_progress: Callable[[str], None] | None = None
    ) -> Endpoint:
        self.cloud.check("deploy")
        running = self.cloud.running.get(spec.name)
        if running is None:
            if on_progress is not None:
                on_progress(f"Starting {spec.name}")
            running = _Running(spec.name, self.cloud, servable, spec.scale or Scale.fixed(self._workers))
            self.cloud.running[spec.name] = running
        elif running.served.servable.digest != servable.digest:
            running.swap(servable)
        return _MemoryEndpoint(running)

    def attach(self, name: str) -> Endpoint:
        if name not in self.cloud.running:
            known = ", ".join(map(repr, self.cloud.running)) or "none"
            raise DeploymentNotFoundError(f"There is no deployment {name!r}; there are {known}.")
        return _MemoryEndpoint(self.cloud.running[name])

    def list(self) -> list[EndpointStatus]:
        return [running.status() for running in self.cloud.running.values()]


@dataclass(frozen=True, slots=True)
class _Served:
    """One version of a model; requests that were sent to it are answered by it."""

    servable: Servable
    session: Runner


class _Running:
    """One endpoint of the cloud: a model, and a thread for each replica."""

    def __init__(self, name: str, cloud: MemoryCloud, servable: Servable, scale: Scale) -> None:
        self.name = name
        self.cloud = cloud
        self.scale = scale
        self.served = _Served(servable, open_session(servable))
        self.lines = [f"{name}: started"]
        self._lock = threading.Lock()
        self._threads = self._pool()

    def submit(self, request: Request) -> Future[Reply]:
        with self._lock:
            return self._threads.submit(self._answer, self.served, request)

    def resize(self, scale: Scale) -> None:
        self.cloud.check("scale")
        with self._lock:
            before, self.scale = self._threads, scale
            self._threads = self._pool()
        before.shutdown(wait=True)

    def swap(self, servable: Servable) -> None:
        self.cloud.check("update")
        served = _Served(servable, open_session(servable))
        with self._lock:
            self.served = served
        self.lines.append(f"{self.name}: updated")

    def stop(self) -> None:
        self._threads.shutdown(wait=True)

    def status(self) -> EndpointStatus:
        replicas = tuple(ReplicaStatus(f"{self.name}-{index}", State.READY) for index in range(self.replicas))
        return EndpointStatus(
            self.name, InMemoryBackend.name, State.READY, self.served.servable.digest, self.scale, replicas
        )

    @property
    def replicas(self) -> int:
        return max(1, self.scale.minimum)

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.replicas, thread_name_prefix=f"memory-{self.name}")

    def _answer(self, served: _Served, request: Request) -> Reply:
        if not self.cloud.gate.wait(request.timeout_s):
            raise _late(request.timeout_s)
        joined = request.message.join()
        header, body = joined[: len(request.message.header)], memoryview(joined)[len(request.message.header) :]
        try:
            self.cloud.check("run")
            layout = wire.request_layout(header)
            answers = served.session.run(wire.decode(layout, body), layout.outputs)
            message = wire.encode_reply({name: _contiguous(array) for name, array in answers.items()})
        except ModelServeError as error:
            # As text and back, as it would come from another process.
            raise wire.decode_error(wire.encode_error(error)) from None
        return Reply(message.header, memoryview(b"".join(message.buffers)))


class _MemoryFuture:
    """An answer with a deadline."""

    def __init__(self, future: Future[Reply], timeout_s: float) -> None:
        self._future = future
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def result(self) -> Reply:
        try:
            return self._future.result(self._left_s())
        except FutureTimeoutError:
            raise _late(self._timeout_s) from None

    def __await__(self) -> Generator[Any, None, Reply]:
        return self._answer().__await__()

    def done(self) -> bool:
        return self._future.done()

    async def _answer(self) -> Reply:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self._future), self._left_s())
        except TimeoutError:
            raise _late(self._timeout_s) from None

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


@dataclass(slots=True)
class _MemoryEndpoint(Endpoint):
    """One user's hold of a running endpoint."""

    running: _Running
    is_closed: bool = field(default=False, init=False)

    @property
    def name(self) -> str:  # type: ignore[override]  # read where the endpoint runs, so that it is always current
        return self.running.name

    @property
    def signature(self) -> Signature:  # type: ignore[override]  # as name
        return self.running.served.session.signature

    @property
    def rows_independent(self) -> bool:  # type: ignore[override]  # as name
        return self.running.served.session.rows_independent

    @property
    def limits(self) -> Limits:
        return self.running.cloud.limits

    def submit(self, request: Request) -> ReplyFuture:
        self._check_open()
        limit = self.limits.request_bytes
        if limit is not None and request.message.size_bytes > limit:
            raise WireError(f"A request of {request.message.size_bytes} bytes is above the limit of {limit}.")
        return _MemoryFuture(self.running.submit(request), request.timeout_s)

    def scale(self, scale: Scale) -> None:
        self._check_open()
        self.running.resize(scale)

    def status(self) -> EndpointStatus:
        self._check_open()
        return self.running.status()

    def update(self, servable: Servable) -> None:
        self._check_open()
        self.running.swap(servable)

    def logs(self) -> Iterable[str]:
        self._check_open()
        return list(self.running.lines)

    def batch(self, name: str, parts: Iterable[WorkPart]) -> Job:
        self._check_open()
        cloud, name = self.running.cloud, f"{self.name}-{name}"
        if name not in cloud.jobs:
            work = dict(parts)
            cloud.check("batch")
            cloud.jobs[name] = MemoryJob(name, cloud, self.running.served.servable, work)
        return cloud.jobs[name]

    def close(self) -> None:
        self.is_closed = True

    def delete(self) -> None:
        self.running.cloud.check("delete")
        for job in list(self.running.cloud.jobs.values()):
            if job.name.startswith(f"{self.name}-"):
                job.delete()
        if self.running.cloud.running.get(self.name) is self.running:
            del self.running.cloud.running[self.name]
            self.running.stop()
        self.close()

    def _check_open(self) -> None:
        if self.is_closed:
            raise DeploymentClosedError(f"Endpoint {self.name!r} is closed.")


def _late(timeout_s: float) -> DeadlineError:
    return DeadlineError(f"No answer within {timeout_s:g} s. Raise timeout_s= or scale up.")


def _contiguous(array: Any) -> Any:
    import numpy as np

    return np.ascontiguousarray(array) if array.ndim else array
