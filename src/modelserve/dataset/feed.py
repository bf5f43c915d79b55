"""Which columns a model is fed with, and how their values become its tensors.

    record batch ──► arrays by input ──Signature.check──► groups of rows that fit into one request

Rows whose shapes differ (pictures of several sizes, lists of several lengths) go into requests of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from modelserve.dataset.images import are_pictures, decoded
from modelserve.dataset.tables import array_from_arrow, matrix_of, side_by_side
from modelserve.errors import SignatureError
from modelserve.tensors import Array, Signature, TensorSpec
from modelserve.tensors.fit import as_dtype


class Group(NamedTuple):
    """Rows that travel in one request.

    Attributes:
        positions: Their numbers within the batch, rising.
        tensors: By input name, C-contiguous, as the signature wants them.
    """

    positions: Array
    tensors: dict[str, Array]

    @property
    def rows(self) -> int:
        return len(self.positions)

    def part(self, start: int, end: int) -> Group:
        return Group(self.positions[start:end], {name: array[start:end] for name, array in self.tensors.items()})


class Fed(NamedTuple):
    """A batch as requests, and the rows that cannot become any, with the reason."""

    groups: list[Group]
    refused: dict[int, str]


@dataclass(frozen=True, slots=True)
class Feed:
    """From columns to tensors.

    Attributes:
        columns: The columns of each input, in order.
        rounds: Whether floats may be rounded to the model's dtype.
        decodes: Whether pictures are among them, which take much longer than anything else here.
    """

    signature: Signature
    columns: Mapping[str, tuple[str, ...]]
    rounds: bool = False
    decodes: bool = False

    def tensors_of(self, rows: Any, refused: Mapping[int, str]) -> Fed:
        """A record batch as requests. `refused` rows are left out from the start."""
        found = dict(refused)
        if not found:
            try:
                return Fed(self._groups(rows, np.arange(rows.num_rows)), found)
            except SignatureError:
                pass
        good = [at for at in range(rows.num_rows) if at not in found]
        self._find_culprits(rows, good, found)
        kept = np.array([at for at in good if at not in found], np.int64)
        return Fed(self._groups(rows.take(pa.array(kept)), kept) if len(kept) else [], found)

    def _find_culprits(self, rows: Any, among: Sequence[int], found: dict[int, str]) -> None:
        """Halve until only rows are left that cannot be read by themselves."""
        if not among:
            return
        try:
            self._groups(rows.take(pa.array(among, pa.int64())), np.array(among))
        except SignatureError as error:
            if len(among) == 1:
                found[among[0]] = str(error)
                return
            half = len(among) // 2
            self._find_culprits(rows, among[:half], found)
            self._find_culprits(rows, among[half:], found)

    def _groups(self, rows: Any, positions: Array) -> list[Group]:
        values = {spec.name: self._value(spec, rows) for spec in self.signature.inputs}
        if not any(isinstance(value, list) for value in values.values()):
            return [Group(positions, self._checked(values))]
        groups = []
        for some in _of_one_shape(values, len(positions)):
            picked = {name: _picked(value, some) for name, value in values.items()}
            groups.append(Group(positions[some], self._checked(picked)))
        return groups

    def _checked(self, values: Mapping[str, Any]) -> dict[str, Array]:
        inputs = next(iter(values.values())) if len(values) == 1 else values
        return self.signature.check(inputs).tensors

    def _value(self, spec: TensorSpec, rows: Any) -> Array | list[Array]:
        names = self.columns[spec.name]
        if len(names) > 1 or spec.columns:
            chosen = rows.select(list(names))
            plain = matrix_of(chosen, spec.numpy_dtype)
            return self._matrix(spec, chosen.columns, names) if plain is None else plain
        column = rows.column(names[0])
        if are_pictures(column.type):
            return decoded(column, spec)
        value = array_from_arrow(column)
        if isinstance(value, list):
            return [self._fitted(spec, one) for one in value]
        array = self._fitted(spec, value)
        return array.reshape(-1, 1) if array.ndim == 1 and len(spec.shape) == 2 else array

    def _matrix(self, spec: TensorSpec, columns: Sequence[Any], names: Sequence[str]) -> Array:
        arrays = []
        for name, column in zip(names, columns, strict=True):
            array = array_from_arrow(column)
            if isinstance(array, list):
                raise SignatureError(f"Column {name!r} holds lists, and is one of several columns of {spec.name!r}.")
            arrays.append(self._fitted(replace(spec, name=name), array))
        return side_by_side(arrays, spec.numpy_dtype)

    def _fitted(self, spec: TensorSpec, array: Array) -> Array:
        is_exact = array.dtype == spec.numpy_dtype and spec.dtype != "string"
        return array if is_exact else as_dtype(spec, array, typed=not self.rounds)


def _of_one_shape(values: Mapping[str, Any], rows: int) -> Iterator[Array]:
    """The numbers of the rows that have equal shapes, for each shape in the order in which it is first seen."""
    by_shape: dict[tuple[Any, ...], list[int]] = {}
    for row in range(rows):
        by_shape.setdefault(tuple(np.shape(value[row]) for value in values.values()), []).append(row)
    yield from (np.array(some) for some in by_shape.values())


def _picked(value: Array | list[Array], some: Array) -> Array:
    return np.stack([value[row] for row in some]) if isinstance(value, list) else value[some]
