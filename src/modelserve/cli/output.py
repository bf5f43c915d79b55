"""What the commands print: tables for people, JSON for programs, one line for a failure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNLIMITED = 100_000

GOOD, POOR, BAD, QUIET = "green", "yellow", "red", "dim"


def console() -> Console:
    """Where results go."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=False)


def print_json(content: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(content, indent=2, default=str) + "\n")


def print_line(text: str) -> None:
    """One line as it is, however wide the terminal."""
    sys.stdout.write(text + "\n")


def print_error(message: str) -> None:
    """One clear line on standard error."""
    line = Text.assemble(("error: ", f"bold {BAD}"), " ".join(message.split()))
    Console(file=sys.stderr, highlight=False).print(line, soft_wrap=True)


def print_heading(title: str, note: str = "") -> None:
    """A section's name, with a quiet note behind it."""
    console().print(Text.assemble((title, "bold"), (f"  {note}" if note else "", QUIET)), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Rows under headings; text is never read as markup, and is broken into lines rather than cut."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style=QUIET)
    table.border_style = QUIET
    for name in columns:
        table.add_column(name, overflow="fold")
    _fill(table, rows)
    _print_whole(table)


def print_grid(sections: Mapping[str, Sequence[Sequence[str | Text]]]) -> None:
    """Rows under a bold name for each section, in columns that all sections share."""
    table = Table.grid(padding=(0, 2, 0, 0))
    width = max(len(row) for rows in sections.values() for row in rows)
    for index in range(width):
        # The names and verdicts in front stay whole; what was found and what to do may take several lines.
        table.add_column(no_wrap=index < width - 2, overflow="fold")
    for number, (name, rows) in enumerate(sections.items()):
        if number:
            table.add_row()
        table.add_row(Text(name, "bold"))
        _fill(table, rows)
    _print_whole(table)


def print_pairs(pairs: Mapping[str, str | Text]) -> None:
    """Names and values, one pair a line."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=QUIET, no_wrap=True)
    table.add_column(overflow="fold")
    _fill(table, list(pairs.items()))
    _print_whole(table)


def size(size_bytes: float) -> str:
    """Bytes for people: 1.5 MB is 1,500,000 bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            break
        size_bytes /= 1000
    return f"{size_bytes:,.0f} {unit}" if unit == "bytes" or size_bytes >= 100 else f"{size_bytes:,.1f} {unit}"


@contextmanager
def working(doing: str) -> Iterator[None]:
    """A moving sign on standard error while something takes its time; nothing where no one looks."""
    screen = Console(file=sys.stderr, highlight=False)
    if not screen.is_terminal:
        yield
        return
    with screen.status(Text(doing), spinner="dots"):
        yield


@contextmanager
def reporting(doing: str) -> Iterator[Callable[[str], None]]:
    """What it is at, line by line on standard error: in one place on a screen, one below the other in a log."""
    screen = Console(file=sys.stderr, highlight=False)
    if not screen.is_terminal:
        yield lambda line: screen.print(Text(line), soft_wrap=True)
        return
    with screen.status(Text(doing), spinner="dots") as shown:
        yield lambda line: shown.update(Text(f"{doing}: {line}"))


def _fill(table: Table, rows: Sequence[Sequence[str | Text]]) -> None:
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))


def _print_whole(table: Table) -> None:
    screen = console()
    if screen.is_terminal:
        screen.print(table)
        return
    # A file or a pipe has no width to keep to: a digest or a path is never cut there.
    unlimited = screen.options.update(max_width=_UNLIMITED)
    screen.width = max(screen.width, screen.measure(table, options=unlimited).maximum)
    with screen.capture() as printed:
        screen.print(table)
    print_line("\n".join(line.rstrip() for line in printed.get().splitlines()))
