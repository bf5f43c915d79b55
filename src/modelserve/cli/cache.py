"""`modelserve cache`: what lies under MODELSERVE_HOME, shown and cleared.

Only what modelserve itself put there is ever removed: a home that was set to a folder with other things loses none.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from modelserve.bundle import Bundle
from modelserve.cli.output import print_heading, print_json, print_line, print_table, size
from modelserve.errors import BundleError, InputError
from modelserve.home import home

#: The folders that modelserve makes in its home, each with the names of what it puts into them.
ROOMS = {
    "images": re.compile(r"[0-9a-f]{64}|\.making-.+"),
    "bundles": re.compile(r"[0-9a-f]{64}|\.(making|unpacking|old)-.+"),
    "mapped": re.compile(r"[0-9a-f]{32}|\.[0-9a-f]{32}-.+"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that modelserve keeps."""

    room: str
    path: Path
    size_bytes: int
    what: str


def show(*, as_json: bool) -> None:
    """List what is kept, largest first."""
    entries = sorted(_entries(), key=lambda entry: -entry.size_bytes)
    total = sum(entry.size_bytes for entry in entries)
    if as_json:
        listed = [
            {"room": one.room, "name": one.path.name, "size_bytes": one.size_bytes, "what": one.what} for one in entries
        ]
        print_json({"home": str(home()), "size_bytes": total, "entries": listed})
        return
    print_heading("Cache", str(home()))
    if not entries:
        print_line("empty")
        return
    print_line("")
    rows = [[entry.room, entry.path.name[:12], size(entry.size_bytes), entry.what] for entry in entries]
    print_table(["", "name", "size", "what"], rows)
    print_line(f"\n{len(entries)} in all, {size(total)}. Clear with: modelserve cache clear")


def clear(*, is_agreed: bool, as_json: bool) -> None:
    """Remove what is kept, after asking."""
    entries = list(_entries())
    total = sum(entry.size_bytes for entry in entries)
    if entries and not is_agreed:
        _ask(f"Remove {len(entries)} entries ({size(total)}) from {home()}?")
    for entry in entries:
        shutil.rmtree(entry.path)
    if as_json:
        print_json({"home": str(home()), "removed": len(entries), "size_bytes": total})
    else:
        print_line(f"Removed {len(entries)} entries ({size(total)}) from {home()}.")


def _entries() -> Iterator[Entry]:
    for room, names in ROOMS.items():
        folder = home() / room
        # A link could lead anywhere: nothing behind one is ours to list or to remove.
        if folder.is_symlink() or not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if names.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                yield Entry(room, path, _size_bytes(path), _what(path))


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _what(path: Path) -> str:
    if path.name.startswith("."):
        return "left over from an interrupted write"
    if path.parent.name == "images":
        return "a part of a container image"
    if path.parent.name == "mapped":
        return "weights packed for this processor"
    try:
        origin = Bundle.open(path, verify=False).manifest.origin
    except BundleError as error:
        return f"damaged ({error.code})"
    return f"{origin.type} from {origin.framework}"


def _ask(question: str) -> None:
    import sys

    if not sys.stdin.isatty():
        raise InputError(f"{question} There is no terminal to ask at; add --yes.")
    typer.confirm(question, abort=True)
