"""A run as people watch it: a bar where there is a terminal, a plain line now and then where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from modelserve.dataset.report import Progress

_LINE_EVERY_S = 10.0


@contextmanager
def shown(progress: bool | Callable[[Progress], None]) -> Iterator[Callable[[Progress], None] | None]:
    """What a run is to tell its progress to."""
    if callable(progress):
        yield progress
    elif not progress:
        yield None
    else:
        screen = Console(file=sys.stderr, highlight=False)
        if screen.is_terminal:
            with _bars(screen) as bars:
                yield _Bar(bars)
        else:
            yield _Lines(screen)


def line(progress: Progress) -> str:
    """One moment of a run in words."""
    of = f" of {progress.total:,}" if progress.total is not None else ""
    words = [f"{progress.rows:,}{of} rows", f"{progress.rows_per_s:,.0f} rows/s"]
    if progress.eta_s is not None and not progress.is_done:
        words.append(f"{duration(progress.eta_s)} left")
    words += [f"{progress.failures:,} failed", f"{progress.workers} workers"]
    if progress.doing and not progress.is_done:
        words.append(progress.doing)
    if progress.is_done:
        words.append(f"done in {duration(progress.elapsed_s)}")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Such as 0:07 or 1:02:30."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Lines:
    """A line now and then, and one at the end."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.is_done or now >= self._next:
            self._next = now + _LINE_EVERY_S
            self._screen.print(line(progress), soft_wrap=True, markup=False)


def _bars(screen: Console) -> Bars:
    return Bars(TextColumn("{task.percentage:>3.0f}%"), BarColumn(), TextColumn("{task.description}"), console=screen)


class _Bar:
    """The bar of one run."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def __call__(self, progress: Progress) -> None:
        if self._task is None:
            self._task = self._bars.add_task("", total=progress.total)
        # Where the source does not tell its rows, the bar moves to and fro until the end.
        total = progress.rows if progress.is_done else progress.total
        self._bars.update(self._task, completed=progress.rows, total=total, description=line(progress))
