"""A job's results, fetched once and sorted into its parts on disk.

    prediction.results-... ──line──► {"instance": ..., "prediction": {"$row": [part, index], ...}} ──► <part>.jsonl

The service mixes rows as it likes, and writes JSON anew; memory holds a few megabytes of them, whatever their number.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import orjson

from modelserve.errors import BackendError
from modelserve_vertex.batch.files import JobFiles

_HELD_BYTES = 16 << 20


class _Result(msgspec.Struct):
    prediction: msgspec.Raw


class Answers:
    """The answers of one job, by part.

    Attributes:
        rows: How many each part has.
    """

    def __init__(self, files: JobFiles, directory: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="modelserve-answers-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._held: dict[int, bytearray] = {}
        self._held_bytes = 0
        self.rows: Counter[int] = Counter()
        for blob in files.results(directory):
            fetched = self._folder / "fetched"
            files.fetch(blob, fetched)
            self._sort(fetched)
            fetched.unlink()
        self._flush()

    def lines(self, part: int) -> bytes:
        """The answers of a part that has some."""
        return self._path(part).read_bytes()

    def _sort(self, fetched: Path) -> None:
        with fetched.open("rb") as lines:
            for line in lines:
                part, answer = _answer(line)
                self.rows[part] += 1
                self._held.setdefault(part, bytearray()).extend(answer)
                self._held_bytes += len(answer)
                if self._held_bytes > _HELD_BYTES:
                    self._flush()

    def _flush(self) -> None:
        for part, content in self._held.items():
            with self._path(part).open("ab") as file:
                file.write(content)
        self._held.clear()
        self._held_bytes = 0

    def _path(self, part: int) -> Path:
        return self._folder / f"{part}.jsonl"


def _answer(line: bytes) -> tuple[int, bytes]:
    """The part of a result's row, and its answer as a line."""
    try:
        found: dict[str, Any] = orjson.loads(bytes(msgspec.json.decode(line, type=_Result).prediction))
        # Whole, whatever became of them on the way: some of Google's JSON has all numbers as doubles.
        part, index = (int(number) for number in found["$row"])
    except (ValueError, TypeError, KeyError) as error:
        raise BackendError(
            f"The batch service wrote a line that answers no row: {line[:200]!r}. Use engine='local'."
        ) from error
    return part, orjson.dumps({"$row": [part, index], **{k: v for k, v in found.items() if k != "$row"}}) + b"\n"
