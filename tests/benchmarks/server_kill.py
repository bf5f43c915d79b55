"""What callers see when a process that runs the model is killed under load."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server_process import ServerProcess

_CALLERS = 8
_BEFORE_S, _AFTER_S, _TIMEOUT_S = 1.5, 4.0, 5.0


def kill_under_load(
    server: ServerProcess, port: int, path: str, body: bytes, headers: Mapping[str, str]
) -> dict[str, Any]:
    """Kill the busiest process that has onnxruntime loaded; what eight callers saw from then on."""
    stop = threading.Event()
    answers: list[tuple[float, float, str]] = []
    threads = [
        threading.Thread(target=_call, args=(port, path, body, dict(headers), stop, answers), daemon=True)
        for _ in range(_CALLERS)
    ]
    for thread in threads:
        thread.start()
    time.sleep(_BEFORE_S)
    victim = _busiest(server)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    time.sleep(_AFTER_S)
    stop.set()
    for thread in threads:
        thread.join(_TIMEOUT_S + 1)
    later = [answer for answer in answers if answer[0] >= killed]
    failed = Counter(kind for _, _, kind in later if kind != "200")
    return {
        "failed": sum(failed.values()),
        "kinds": dict(failed),
        "answered": sum(kind == "200" for _, _, kind in later),
        "slowest_s": round(max((took for _, took, _ in later), default=_AFTER_S), 3),
    }


def _call(
    port: int, path: str, body: bytes, headers: dict[str, str], stop: threading.Event, answers: list[Any]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    while not stop.is_set():
        start = time.monotonic()
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            kind = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            kind = type(error).__name__
            connection.close()
        answers.append((time.monotonic(), time.monotonic() - start, kind))
        if kind != "200":
            time.sleep(0.01)
    connection.close()


def _busiest(server: ServerProcess) -> int:
    """Of those that run the model, the one that works most; the first process only where there is no other."""
    runners = [pid for pid in server.pids() if _runs_models(pid)]
    before = {pid: _ticks(pid) for pid in runners}
    time.sleep(0.5)
    others = [pid for pid in runners if pid != server.root] or runners
    return max(others, key=lambda pid: _ticks(pid) - before[pid])


def _runs_models(pid: int) -> bool:
    try:
        return "onnxruntime" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
