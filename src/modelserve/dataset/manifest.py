"""What a folder holds: whose parts, cut where, and each one's digest.

    {"modelserve_dataset": 1, "model": ..., "source": ..., "batch_rows": ..., ...}    the run: what its bytes depend on
    {"part": 0, "rows": 262144, "failed": 0, "file": {"name", "bytes", "sha256"}}     a part that is there for good
    {"part": 1, ...}
    {"end": true, "parts": 2, "rows": 300000, "failed": 0}                            nothing is missing

A line is added when its part is in place, and is on disk before the next part is begun; a last line that was cut short
by a crash does not count. There is no time and no machine in it, so that equal runs give equal manifests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelserve.errors import ResumeError

NAME = "_manifest.jsonl"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A part that is in place."""

    part: int
    rows: int
    failed: int
    file: Mapping[str, Any]
    dead_letters: Mapping[str, Any] | None = None
    read: str = ""

    def line(self) -> bytes:
        content: dict[str, Any] = {"part": self.part, "rows": self.rows, "failed": self.failed, "file": self.file}
        if self.dead_letters is not None:
            content["dead_letters"] = self.dead_letters
        if self.read:
            content["read"] = self.read
        return _line(content)


@dataclass(slots=True)
class Manifest:
    """A run's identity and its parts so far."""

    identity: Mapping[str, Any]
    entries: dict[int, Entry] = field(default_factory=dict)
    is_complete: bool = False

    @property
    def rows(self) -> int:
        return sum(entry.rows for entry in self.entries.values())

    @property
    def failed(self) -> int:
        return sum(entry.failed for entry in self.entries.values())

    def head(self) -> bytes:
        return _line({"modelserve_dataset": _FORMAT, **self.identity})

    def end(self) -> bytes:
        return _line({"end": True, "parts": len(self.entries), "rows": self.rows, "failed": self.failed})

    def content(self) -> bytes:
        """All of it, the parts in order."""
        lines = [self.head(), *(self.entries[index].line() for index in sorted(self.entries))]
        return b"".join([*lines, self.end()] if self.is_complete else lines)

    @classmethod
    def parsed(cls, content: bytes) -> Manifest | None:
        """What a manifest says; None where not even its first line was written whole.

        Raises:
            ResumeError: it is no manifest, or one of a newer modelserve.
        """
        whole = content[: content.rfind(b"\n") + 1].splitlines()
        if not whole:
            return None
        try:
            head, *others = [json.loads(line) for line in whole]
            version = head.pop("modelserve_dataset")
            found = cls(head)
            for line in others:
                found._take(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResumeError(f"{NAME!r} is no manifest of a run ({error!r}). Name another folder.") from error
        if version != _FORMAT:
            raise ResumeError(
                f"{NAME!r} is of format {version!r}, this modelserve knows {_FORMAT}. Upgrade modelserve."
            )
        return found

    def _take(self, line: Mapping[str, Any]) -> None:
        if line.get("end"):
            self.is_complete = True
            return
        entry = Entry(
            line["part"], line["rows"], line["failed"], line["file"], line.get("dead_letters"), line.get("read", "")
        )
        self.entries[entry.part] = entry


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was, for people."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        was, is_now = before.get(key), now.get(key)
        if was != is_now:
            found.append(f"{key}: {_difference(was, is_now)}")
    return found


def _difference(was: Any, is_now: Any) -> str:
    if isinstance(was, Mapping) and isinstance(is_now, Mapping):
        return "; ".join(differences(was, is_now))
    if isinstance(was, Sequence) and isinstance(is_now, Sequence) and not isinstance(was, str):
        if len(was) != len(is_now):
            return f"was {len(was)} entries, is {len(is_now)}"
        return "; ".join(_difference(one, other) for one, other in zip(was, is_now, strict=True) if one != other)
    return f"was {_short(was)}, is {_short(is_now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
