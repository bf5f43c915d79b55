"""One part of the result: kept columns beside outputs, and the rows that have no answer."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from modelserve.dataset.asking import Answered, Failure
from modelserve.dataset.pieces import Piece
from modelserve.dataset.sources.memory import content_of
from modelserve.dataset.tables import arrow_from_answer, arrow_type
from modelserve.tensors import Array, TensorSpec


class Part(NamedTuple):
    """A part as it is to be written.

    Attributes:
        start: The number of its first row in the source.
        rows: Rows of the source in it, those that failed included.
        content: The file's bytes.
        dead_letters: The JSON lines of the rows that failed; empty where none did.
        read_digest: SHA-256 of the rows that were read, where the source cannot be told from another before.
    """

    number: int
    start: int
    rows: int
    failed: int
    content: Any
    dead_letters: bytes
    read_digest: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of the result: those of the source that are kept, then the outputs."""

    kept: Any
    outputs: tuple[TensorSpec, ...]

    @property
    def schema(self) -> Any:
        return pa.schema([*self.kept, *(pa.field(spec.name, arrow_type(spec)) for spec in self.outputs)])

    @property
    def row_bytes(self) -> int:
        """What a row's answer takes; a free axis counts as one value."""
        return sum(_size_bytes(spec) for spec in self.outputs)


def _size_bytes(spec: TensorSpec) -> int:
    return spec.numpy_dtype.itemsize * math.prod(size for size in spec.shape[1:] if isinstance(size, int))


@dataclass(slots=True)
class PartRows:
    """The rows of a part while they come in."""

    number: int
    start: int
    shape: Shape
    is_hashed: bool = False
    rows: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    _batches: list[Any] = field(default_factory=list)
    _read: Any = field(default_factory=hashlib.sha256)

    def add(self, piece: Piece, answered: Sequence[Answered], failures: Sequence[Failure]) -> None:
        """The answers to one batch."""
        self.rows += piece.rows.num_rows
        if self.is_hashed:
            self._read.update(content_of(piece.rows))
        kept = piece.rows.select(self.shape.kept.names)
        self.failures += [_dead_letter(piece, kept, failure) for failure in sorted(failures)]
        if failures:
            lost = {failure.row for failure in failures}
            kept = kept.take(pa.array([row for row in range(piece.rows.num_rows) if row not in lost], pa.int64()))
        arrays = _in_order(answered)
        if arrays:
            outputs = [arrow_from_answer(spec, arrays[spec.name]) for spec in self.shape.outputs]
            self._batches.append(pa.RecordBatch.from_arrays([*kept.columns, *outputs], schema=self.shape.schema))

    @property
    def read_digest(self) -> str:
        """SHA-256 of what was read, where it was asked for; else nothing."""
        return self._read.hexdigest() if self.is_hashed else ""

    def table(self) -> Any:
        return pa.Table.from_batches(self._batches, self.shape.schema).combine_chunks()

    def dead_letters(self) -> bytes:
        return b"".join(json.dumps(letter, default=str).encode() + b"\n" for letter in self.failures)


def _in_order(answered: Sequence[Answered]) -> Mapping[str, Array]:
    """The arrays of all groups of a batch, in the order of its rows."""
    if not answered:
        return {}
    if len(answered) == 1:
        return answered[0].arrays
    order = np.argsort(np.concatenate([np.asarray(one.positions) for one in answered]), kind="stable")
    found = {}
    for name in answered[0].arrays:
        arrays = [one.arrays[name] for one in answered]
        if len({array.shape[1:] for array in arrays}) == 1:
            found[name] = np.concatenate(arrays)[order]
        else:
            rows = np.empty(len(order), object)
            rows[:] = [row for array in arrays for row in array]
            found[name] = rows[order]
    return found


def _dead_letter(piece: Piece, kept: Any, failure: Failure) -> dict[str, Any]:
    origin, row = piece.place(failure.row)
    letter = {"row": piece.start + failure.row, "origin": origin, "origin_row": row}
    letter |= {"code": failure.code, "error": failure.reason}
    return letter | ({"kept": kept.slice(failure.row, 1).to_pylist()[0]} if kept.num_columns else {})
