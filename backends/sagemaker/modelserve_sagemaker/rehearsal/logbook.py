"""What containers write, into moto's CloudWatch Logs, where SageMaker puts it."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import Any

from modelserve.standin.fleet import Fleet
from modelserve_sagemaker.rehearsal.upstream import Upstream


class Logbook:
    """Copies new lines when somebody is about to read them."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._groups: dict[Fleet, str] = {}
        self._written: Counter[str] = Counter()

    def open(self, group: str, fleet: Fleet) -> None:
        """From now on, the lines of these containers belong to that group."""
        with self._lock:
            self._groups[fleet] = group

    def write(self, *fleets: Fleet) -> None:
        """Copy what was written since the last time; of all fleets where none is named."""
        with self._lock:
            for fleet in fleets or list(self._groups):
                for container, lines in fleet.stamped_logs().items():
                    self._copy(self._groups[fleet], container.partition("/")[2], lines)

    def _copy(self, group: str, stream: str, lines: list[tuple[float, str]]) -> None:
        start = self._written[f"{group} {stream}"]
        fresh = [(int(at * 1000), line) for at, line in lines[start:] if line]
        self._written[f"{group} {stream}"] = len(lines)
        if not fresh:
            return
        logs: Any = self._upstream.client("logs")
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=group)
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
        logs.put_log_events(
            logGroupName=group,
            logStreamName=stream,
            logEvents=[{"timestamp": at, "message": line} for at, line in fresh],
        )
