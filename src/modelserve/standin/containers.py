"""One process of the real runtime, started as a cloud starts a container: environment, arguments, a folder, a port.

    Container(spec) ──► launch ──► python -m modelserve.runtime serve
        │  GET /ping every moment            │ stdout, stderr
        └── starting ─► ready ─► ended       └── lines, kept

It has a process group of its own, and dies with this process. Stopping is what a cloud does: SIGTERM, a grace, SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import httpx

from modelserve.standin.launch import can_mount, command

RUNTIME = (sys.executable, "-m", "modelserve.runtime")
_LINES_KEPT = 10_000
_PING_EVERY_S = 0.05
_PING_TIMEOUT_S = 2.0
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """How one cloud starts a container of one model.

    Attributes:
        environment: What the cloud sets, without the port.
        arguments: Behind the image's entry point.
        port_variable: The variable by which the container is told its port.
        health_path: Answers 200 when requests may be sent.
        folder: The model's files.
        mount_at: Where the cloud has them, such as /opt/ml/model.
        folder_variable: Where `mount_at` cannot be had: the variable that tells the container `folder_value` instead,
            by default `folder` itself.
        grace_s: Between SIGTERM and SIGKILL.
        program: The image's entry point.
    """

    environment: Mapping[str, str]
    port_variable: str
    health_path: str
    arguments: Sequence[str] = ()
    folder: Path | None = None
    mount_at: str = ""
    folder_variable: str = ""
    folder_value: Path | None = None
    grace_s: float = 30.0
    program: Sequence[str] = RUNTIME


class Container:
    """One container. `name` is the cloud's word for the instance it runs on."""

    def __init__(self, spec: ContainerSpec, name: str) -> None:
        self.spec = spec
        self.name = name
        #: What it wrote, each line with the time at which it came (seconds since 1970).
        self.stamped: deque[tuple[float, str]] = deque(maxlen=_LINES_KEPT)
        self.port = _free_port()
        self.inflight = 0
        self.is_ready = False
        self._process = _spawn(_command(spec), _environment(spec, self.port))
        self._reader = threading.Thread(target=self._read, name=f"modelserve-log-{name}", daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[str]:
        """What it wrote, oldest first."""
        return [line for _, line in list(self.stamped)]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def processor_s(self) -> float:
        """Seconds of processors that it has had so far; 0 where the system does not tell."""
        return sum(map(_processor_s, _descent(self._process.pid)))

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def exit_status(self) -> int | None:
        return self._process.poll()

    def is_healthy(self) -> bool:
        """Whether it answers its health path now."""
        try:
            answer = httpx.get(f"{self.url}{self.spec.health_path}", timeout=_PING_TIMEOUT_S, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def wait_ready(self, timeout_s: float, *, is_wanted: Callable[[], bool] = lambda: True) -> bool:
        """Whether it became ready: False when it ended, when time is up, or when it is no longer wanted."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and is_wanted() and not self.has_ended:
            if self.is_healthy():
                self.is_ready = True
                return True
            time.sleep(_PING_EVERY_S)
        return False

    def kill(self) -> None:
        """End it at once, as a machine that breaks does."""
        self.is_ready = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_PING_TIMEOUT_S)

    def stop(self) -> None:
        """SIGTERM, the grace, SIGKILL. Quiet when it has ended."""
        self.is_ready = False
        if not self.has_ended:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.spec.grace_s)
        self.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self.stamped.append((time.time(), line.decode(errors="replace").rstrip("\n")))


def _command(spec: ContainerSpec) -> list[str]:
    program = [*spec.program, *spec.arguments]
    is_mounted = spec.folder is not None and bool(spec.mount_at) and can_mount(spec.mount_at)
    return command(spec.folder if is_mounted else None, spec.mount_at, program)


def _environment(spec: ContainerSpec, port: int) -> dict[str, str]:
    """What a container sees: nothing of this process but what its interpreter needs."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    told = {spec.port_variable: str(port), "MODELSERVE_SERVER_HOST": "127.0.0.1"}
    if spec.folder_variable and not (spec.mount_at and can_mount(spec.mount_at)):
        told[spec.folder_variable] = str(spec.folder_value or spec.folder)
    return {**kept, **spec.environment, **told}


def _descent(first: int) -> list[list[str]]:
    """A process and all that come of it, each as what /proc/<pid>/stat says behind its name (proc(5))."""
    found: dict[int, list[str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found[int(path.parent.name)] = path.read_text(errors="replace").rpartition(")")[2].split()
    family, grows = {first}, True
    while grows:
        children = {pid for pid, fields in found.items() if int(fields[1]) in family} - family
        family |= children
        grows = bool(children)
    return [found[pid] for pid in family & found.keys()]


def _processor_s(fields: list[str]) -> float:
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Spawner:
    """Starts every process from one thread that lives as long as this process.

    Linux tells a child that its parent died when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG), and
    whoever asks for a container may be a thread of some request.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[list[str], dict[str, str], Future[subprocess.Popen[bytes]]]] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def __call__(self, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._thread is None or self._owner != os.getpid():
                self._owner = os.getpid()
                self._thread = threading.Thread(target=self._run, name="modelserve-spawner", daemon=True)
                self._thread.start()
        started: Future[subprocess.Popen[bytes]] = Future()
        self._work.put((arguments, environment, started))
        return started.result()

    def _run(self) -> None:
        while True:
            arguments, environment, started = self._work.get()
            try:
                process = subprocess.Popen(  # noqa: S603  # our own runtime, by the path of this interpreter
                    arguments,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except BaseException as error:  # noqa: BLE001  # handed to whoever asked
                started.set_exception(error)
            else:
                started.set_result(process)


_spawn = _Spawner()
