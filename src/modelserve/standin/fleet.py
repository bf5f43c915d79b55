"""Containers of one model behind one door, as a cloud's front keeps them.

forward(request) ──► the ready container with the least under way ──► its answer, status and all
a container that ends is taken out at once and replaced
resize, replace: new ones are ready before old ones go, which drain first
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as changed

import httpx

from modelserve.standin.containers import Container, ContainerSpec
from modelserve.standin.faults import Switches
from modelserve.standin.loopback import Answered, Pieces

_LOOK_EVERY_S = 0.1
_CONNECTIONS = 256


class NotHealthyError(Exception):
    """Containers did not become ready; `lines` is the end of what they wrote."""

    def __init__(self, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.lines = list(lines)


class NoCapacityError(Exception):
    """The cloud has no machine for another replica (a switch of the faults says so)."""


class Fleet:
    """A number of containers that are all alike.

    Args:
        name: Containers are called `<name>-0`, `<name>-1`, ...
        startup_s: How long a container may take to become ready.
        switches: What is to go wrong with containers now.
    """

    def __init__(
        self, name: str, spec: ContainerSpec, *, startup_s: float, switches: Callable[[], Switches] = Switches
    ) -> None:
        self.name = name
        self.spec = spec
        self.wanted = 0
        self._startup_s = startup_s
        self._switches = switches
        self._count = 0
        self._lock = threading.Lock()
        self._changes = threading.RLock()
        self._containers: list[Container] = []
        self._ended: list[Container] = []
        self._stopping = threading.Event()
        self._client = httpx.Client(
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS), trust_env=False
        )
        self._watcher = threading.Thread(target=self._watch, name=f"modelserve-fleet-{name}", daemon=True)
        self._watcher.start()

    @property
    def containers(self) -> list[Container]:
        """Those that are there now, ready or not."""
        with self._lock:
            return list(self._containers)

    @property
    def ready(self) -> int:
        return sum(container.is_ready for container in self.containers)

    def logs(self) -> dict[str, list[str]]:
        """Lines by container, of those that ended too."""
        return {name: [line for _, line in stamped] for name, stamped in self.stamped_logs().items()}

    def stamped_logs(self) -> dict[str, list[tuple[float, str]]]:
        """As `logs`, each line with its time (seconds since 1970)."""
        with self._lock:
            everybody = [*self._ended, *self._containers]
        return {container.name: list(container.stamped) for container in everybody}

    def resize(self, replicas: int) -> None:
        """Have this many ready.

        Raises:
            NotHealthyError: new ones did not become ready; those that were there stay.
            NoCapacityError: there is no room for so many.
        """
        with self._changes:
            extra = replicas - len(self.containers)
            if extra > 0:
                self._add(self._started(self.spec, extra))
            self.wanted = replicas
            if extra < 0:
                self._retire(self.containers[replicas:])

    def replace(self, spec: ContainerSpec, replicas: int | None = None) -> None:
        """Have containers of another kind answer from now on; the old ones drain once the new ones are ready.

        Raises:
            NotHealthyError, NoCapacityError: as `resize`; the old ones go on.
        """
        with self._changes:
            wanted = self.wanted if replicas is None else replicas
            started = self._started(spec, wanted)
            old, self.spec, self.wanted = self.containers, spec, wanted
            self._add(started)
            self._retire(old)

    def forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answered:
        """One container's answer.

        Raises:
            httpx.TimeoutException: it took longer.
            httpx.TransportError: the container ended while it was at it, or none is ready.
        """
        return self.stream(method, path, headers, body, timeout_s).whole()

    def stream(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answered:
        """One container's answer, as soon as it begins to come; its pieces are to be taken, or closed.

        Raises:
            httpx.TimeoutException, httpx.TransportError: as `forward`, also while pieces are taken.
        """
        container, answer = self._asked(method, path, dict(headers), body, timeout_s)
        pieces = self._pieces(container, answer)
        next(pieces)  # from here on it lets go of the container, however it ends
        return Answered(answer.status_code, headers=dict(answer.headers), pieces=pieces)

    def kill_one(self) -> str:
        """End one container at once; returns its name."""
        victim = next(container for container in self.containers if container.is_ready)
        victim.kill()
        return victim.name

    def stop(self) -> None:
        """End all. Quiet when called twice."""
        self._stopping.set()
        with self._changes:
            self.wanted = 0
            self._retire(self.containers)
        if self._watcher is not threading.current_thread():
            self._watcher.join()
        self._client.close()

    def _asked(
        self, method: str, path: str, headers: dict[str, str], body: bytes, timeout_s: float
    ) -> tuple[Container, httpx.Response]:
        tried: set[str] = set()
        while True:
            container = self._chosen(tried)
            request = self._client.build_request(
                method, f"{container.url}{path}", headers=headers, content=body, timeout=timeout_s
            )
            try:
                return container, self._client.send(request, stream=True)
            except BaseException as error:
                self._let_go(container)
                if not isinstance(error, httpx.ConnectError):
                    raise
                # Nothing was sent: the door asks another one.
                tried.add(container.name)

    def _pieces(self, container: Container, answer: httpx.Response) -> Pieces:
        try:
            yield b""
            yield from answer.iter_bytes()
        finally:
            answer.close()
            self._let_go(container)

    def _let_go(self, container: Container) -> None:
        with self._lock:
            container.inflight -= 1

    def _chosen(self, tried: set[str]) -> Container:
        with self._lock:
            ready = [one for one in self._containers if one.is_ready and one.name not in tried]
            if not ready:
                raise httpx.ConnectError(f"No container of {self.name!r} is ready.")
            chosen = min(ready, key=lambda one: one.inflight)
            chosen.inflight += 1
            return chosen

    def _started(self, spec: ContainerSpec, count: int) -> list[Container]:
        switches = self._switches()
        if switches.replicas is not None and count + len(self.containers) > switches.replicas:
            raise NoCapacityError(f"There is capacity for {switches.replicas} replicas.")
        if switches.start_delay_s:
            self._stopping.wait(switches.start_delay_s)
        started = [Container(_spoiled(spec, switches), self._next_name()) for _ in range(count)]
        deadline = time.monotonic() + self._startup_s
        for container in started:
            left_s = max(0.0, deadline - time.monotonic())
            if not container.wait_ready(left_s, is_wanted=lambda: not self._stopping.is_set()):
                for one in started:
                    one.kill()
                with self._lock:
                    self._ended += started
                raise NotHealthyError(f"{container.name} did not become ready.", container.lines)
        return started

    def _add(self, started: Sequence[Container]) -> None:
        with self._lock:
            self._containers += started

    def _retire(self, containers: Sequence[Container]) -> None:
        with self._lock:
            self._containers = [one for one in self._containers if one not in containers]
            for container in containers:
                container.is_ready = False
        stopping = [threading.Thread(target=self._drained_and_stopped, args=(one,)) for one in containers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        with self._lock:
            self._ended += containers

    def _drained_and_stopped(self, container: Container) -> None:
        deadline = time.monotonic() + container.spec.grace_s
        while container.inflight and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S / 10)
        container.stop()

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_EVERY_S):
            dead = [container for container in self.containers if container.has_ended]
            with self._lock:
                self._containers = [one for one in self._containers if one not in dead]
                self._ended += dead
            if len(self.containers) < self.wanted:
                self._replace_missing()

    def _replace_missing(self) -> None:
        if not self._changes.acquire(blocking=False):
            return
        try:
            missing = self.wanted - len(self.containers)
            if missing > 0 and not self._stopping.is_set():
                self._add(self._started(self.spec, missing))
        except (NotHealthyError, NoCapacityError):
            # It is tried again as long as something is missing, as a cloud does.
            return
        finally:
            self._changes.release()

    def _next_name(self) -> str:
        with self._lock:
            self._count += 1
            return f"{self.name}-{self._count - 1}"


def _spoiled(spec: ContainerSpec, switches: Switches) -> ContainerSpec:
    if switches.crash_at_start:
        return changed(spec, arguments=[*spec.arguments, "--no-such-setting"])
    if switches.never_healthy:
        return changed(spec, health_path="/never-healthy")
    return spec
