"""What a call is about to create is written down first, so that a failure half-way leaves nothing.

    with Journal("sagemaker", "digits") as journal:
        journal.will_create("model", name, undo)    on disk before the cloud is asked
        client.create_model(...)
        ...                                         an error, Ctrl-C: undone in reverse order

Only what this call made is undone: what was found there already is never written down. If the process itself dies,
the journal stays under MODELSERVE_HOME, and `unfinished` finds it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from modelserve.errors import ModelServeError
from modelserve.home import home

_log = logging.getLogger(__name__)
_KIND = ".jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that may exist: its kind in the cloud's own words, and what names it there."""

    kind: str
    identity: str

    def __str__(self) -> str:
        return f"{self.kind} {self.identity!r}"


class Journal:
    """The record of one call; at the end of `with` either everything stays or everything is undone.

    Attributes:
        left: After a failure: what could not be undone, and why.
    """

    def __init__(self, backend: str, deployment: str) -> None:
        self.backend = backend
        self.deployment = deployment
        self.left: dict[Entry, BaseException] = {}
        self._path = _folder(backend) / f"{deployment}-{uuid.uuid4().hex[:12]}{_KIND}"
        self._undo: dict[Entry, Callable[[], None]] = {}

    def will_create(self, kind: str, identity: str, undo: Callable[[], None]) -> Entry:
        """Write down what is created next.

        Args:
            undo: Removes it; called once, must be quiet when it never came to be, and must wait until it is gone.
        """
        entry = Entry(kind, identity)
        self._undo[entry] = undo
        self._write(entry)
        return entry

    def forget(self, entry: Entry) -> None:
        """It turned out to be somebody else's: it was there before."""
        self._undo.pop(entry, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._roll_back()
            if self.left:
                error.add_note(self._told())
                return
        self._path.unlink(missing_ok=True)

    def _roll_back(self) -> None:
        for entry, undo in reversed(self._undo.items()):
            try:
                undo()
            except Exception as error:  # noqa: BLE001  # one thing that resists must not keep the others alive
                _log.warning("%s could not be removed: %s", entry, error)
                self.left[entry] = error

    def _told(self) -> str:
        left = "; ".join(f"{entry} ({error})" for entry, error in self.left.items())
        return (
            f"Not everything that this call made could be removed again: {left}. "
            f"Remove it with: modelserve delete {self.deployment} --target TARGET"
        )

    def _write(self, entry: Entry) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"deployment": self.deployment, **asdict(entry)}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ModelServeError(
                f"The journal {str(self._path)!r} cannot be written ({error.strerror or error}), and without it "
                "nothing is created that could be left behind. Make room there, or set MODELSERVE_HOME."
            ) from error


def unfinished(backend: str, deployment: str | None = None) -> dict[Path, list[Entry]]:
    """What calls that never came to an end wrote down, oldest first; of one deployment where it is named."""
    found: dict[Path, list[Entry]] = {}
    for path in sorted(_folder(backend).glob(f"*{_KIND}"), key=lambda path: path.stat().st_mtime):
        entries = [entry for name, entry in _read(path) if deployment in {None, name}]
        if entries:
            found[path] = entries
    return found


def settle(paths: Iterator[Path] | list[Path]) -> None:
    """Forget journals whose entries are gone."""
    for path in paths:
        path.unlink(missing_ok=True)


def _read(path: Path) -> Iterator[tuple[str, Entry]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        # The last line may have been cut by the end of its process; what it announced was then never created.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            content = json.loads(line)
            yield content["deployment"], Entry(content["kind"], content["identity"])


def _folder(backend: str) -> Path:
    return home() / "journals" / backend
