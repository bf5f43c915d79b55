"""Workers that die on purpose, and what a test asks of their pool."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle

from modelserve import wire
from modelserve.bundle import LiveCallable
from modelserve.runtime import WorkerPool
from modelserve.tensors import Array, Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "float32", ("batch", 2)),), (TensorSpec("y", "float32", ("batch", 2)),))


def live(function: Callable[[Any], Any], *, rows_independent: bool = False) -> LiveCallable:
    """A function as it travels to workers: by value, for they do not have its module."""
    function.__module__ = "__main__"
    return LiveCallable(cloudpickle.dumps(function), SIGNATURE, "It is a test.", rows_independent)


def predict(pool: WorkerPool, x: Array, timeout_s: float | None = None) -> Array:
    """Ask the pool as a deployment does."""
    reply = pool.submit(wire.encode_request({"x": x}), len(x), timeout_s).result()
    return wire.decode(wire.reply_layout(reply.header), reply.body)["y"]


def children() -> set[int]:
    """All processes below this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for it, and fail where it does not come true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "It did not come true in time."
        threading.Event().wait(0.01)


# What a process does to itself, as source text.
HOWS = {
    "SIGKILL": "os.kill(os.getpid(), 9)",
    "SIGSEGV": "__import__('ctypes').string_at(0)",
    "SIGSTOP": "os.kill(os.getpid(), 19)",
    "exit in native code": "__import__('ctypes').CDLL(None)._exit(7)",
}


def hit(how: str, pid: int) -> None:
    """The same, from outside."""
    number = {"SIGSEGV": signal.SIGSEGV, "SIGSTOP": signal.SIGSTOP}.get(how, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def strike(pool: WorkerPool, how: str, stop: threading.Event) -> None:
    """Hit some workers, whatever stage they are in; not so often that none could ever start."""
    for strike in range(5):
        if stop.wait(1.5 if pool.settings.start == "spawn" else 0.25):
            return
        living = [member.handle.pid for crew in list(pool._roster.crews) for member in list(crew.members)]  # noqa: SLF001  # those that still start, too
        pids = [pid for pid in living if pid]
        if pids:
            hit(how, pids[strike % len(pids)])


def command_of(pid: int) -> str:
    """A process's command line; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def open_descriptors() -> dict[int, str]:
    """This process's descriptors, and what each is open on."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[int(entry.name)] = str(entry.readlink())
    return found
