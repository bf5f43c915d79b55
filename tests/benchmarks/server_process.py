"""One server of the benchmark: started, asked until it answers, weighed, and ended with everything it started."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_LONGEST_START_S = 90.0


class ServerProcess:
    """Runs a command until the end of `with`; its processes are known by a mark in their environment.

    Attributes:
        start_s: From its start to its first right answer.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, port: int
    ) -> None:
        self._mark = f"BENCH_MARK={secrets.token_hex(8)}"
        name, value = self._mark.split("=")
        self._log = log.open("wb")
        self._port = port
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment, name: value},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self.start_s = 0.0

    @property
    def root(self) -> int:
        return self._process.pid

    def wait(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Return at the first answer of 200."""
        while time.monotonic() - self._began < _LONGEST_START_S:
            if self._process.poll() is not None:
                break
            if post(self._port, path, body, headers) == 200:
                self.start_s = time.monotonic() - self._began
                return
            time.sleep(0.01)
        raise RuntimeError(f"It does not answer; see {self._log.name}")

    def pids(self) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def memory_mib(self) -> float:
        """Of all its processes, with the share of each in what they have in common (PSS)."""
        total_kib = 0
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total_kib / 1024

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 5
        while self.pids() and time.monotonic() < end:
            self._process.poll()
            time.sleep(0.05)
        for pid in self.pids():  # those that it left behind, by the mark that it gave them
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(10)
        self._log.close()


def post(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> int:
    """The status of one request; 0 where there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
