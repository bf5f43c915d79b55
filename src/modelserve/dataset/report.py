"""How a run is going, and what it came to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_REMEMBERED = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment. `total` and `eta_s` are None where the source does not tell how many rows it has.

    Attributes:
        rows: Rows that are through, those of an earlier run included.
        rows_per_s: Of this run, since it began.
        workers: Replicas that answer now.
        doing: What is waited for, where that is a service's own job.
    """

    rows: int
    total: int | None
    failures: int
    rows_per_s: float
    elapsed_s: float
    eta_s: float | None
    workers: int
    is_done: bool = False
    doing: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to.

    Attributes:
        rows: Rows of the source, those that failed included.
        rows_per_s: Of this run: rows that an earlier one had answered count in `rows` only.
        resumed_rows: Rows that an earlier run had answered.
        bytes_read, bytes_written: Of this run; read are the columns' values in memory, written the files.
        machines: On how many machines this run's parts were made.
        stages: Seconds that each stage was at work; they overlap.
    """

    folder: Path
    rows: int
    failures: int
    parts: int
    seconds: float
    rows_per_s: float
    resumed_rows: int
    bytes_read: int
    bytes_written: int
    batch_rows: int
    part_rows: int
    engine: str
    machines: int
    stages: dict[str, float]

    def to_json(self) -> bytes:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, indent=2).encode() + b"\n"

    def __str__(self) -> str:
        lines = [f"{self.rows:,} rows in {self.seconds:.1f} s ({self.rows_per_s:,.0f} rows/s) into {self.folder}"]
        if self.resumed_rows:
            lines.append(f"  {self.resumed_rows:,} of them were there from an earlier run")
        if self.failures:
            lines.append(f"  {self.failures:,} rows failed; _failed-*.jsonl say which and why")
        return "\n".join(lines)


@dataclass(slots=True)
class Tally:
    """What the stages of a run have done so far. Each number has one writer."""

    rows: int = 0
    failures: int = 0
    bytes_read: int = 0
    doing: str = ""
    stages: dict[str, float] = field(default_factory=dict)
    first_failures: list[str] = field(default_factory=list)
    machines: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_failures(self, letters: Sequence[Mapping[str, Any]]) -> None:
        """Count rows that failed, and remember the first for whoever is told that they are too many."""
        self.failures += len(letters)
        for letter in letters[: _REMEMBERED - len(self.first_failures)]:
            self.first_failures.append(f"row {letter['origin_row']} of {letter['origin']}: {letter['error']}")

    def note_machine(self, name: str) -> None:
        """A part was made there."""
        self.machines.add(name)

    def note_stages(self, stages: Mapping[str, float]) -> None:
        """Add what was counted elsewhere."""
        for stage, seconds in stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    @contextmanager
    def at_work(self, stage: str) -> Iterator[None]:
        """Count the time within as the stage's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.stages[stage] = self.stages.get(stage, 0.0) + time.perf_counter() - start
