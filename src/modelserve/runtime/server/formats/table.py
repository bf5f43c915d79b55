"""Columns by name, in the one shape in which `Signature.check` reads a table; no data-frame library is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelserve.errors import WireError
from modelserve.tensors import Array

#: Cells of one table. What is sent is bounded anyway; this bounds what can be said in few bytes.
MOST_CELLS = 50_000_000


class Column:
    """One column."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def to_numpy(self) -> Array:
        return self._values if isinstance(self._values, np.ndarray) else _column(self._values)


class Table:
    """A table as `Signature.check` wants one: `columns`, columns by name, and all of it as one array."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = list(columns)
        self._columns = columns

    def __getitem__(self, name: str) -> Column:
        return Column(self._columns[name])

    def to_numpy(self) -> Array:
        return np.stack([self[name].to_numpy() for name in self.columns], axis=1)


def table_of_rows(columns: Sequence[Any], rows: Sequence[Any]) -> Table:
    """A table from its column names and its rows.

    Raises:
        WireError: names that are none or stand twice, rows of another length.
    """
    if not all(isinstance(name, str) for name in columns) or len(set(columns)) != len(columns) or not columns:
        raise WireError(f"The columns must be different names, got {list(columns)[:20]}.")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise WireError(f"Row {index} must be a list of {len(columns)} values, one for each column.")
    _check_cells(len(rows), len(columns))
    return Table({name: [row[at] for row in rows] for at, name in enumerate(columns)})


def table_of_records(records: Sequence[Any]) -> Table:
    """A table from rows that name their columns; what a row leaves out is missing.

    Raises:
        WireError: a row that names none.
    """
    columns: dict[str, None] = {}
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise WireError(f"Record {index} must be an object of values by column, got {type(record).__name__}.")
        columns |= dict.fromkeys(record)
    _check_cells(len(records), len(columns))
    return Table({name: [record.get(name) for record in records] for name in columns})


def check_size(rows: int, columns: int) -> None:
    """Refuse what would not fit into memory once it is unfolded."""
    _check_cells(rows, columns)


def _check_cells(rows: int, columns: int) -> None:
    if rows * max(1, columns) > MOST_CELLS:
        raise WireError(f"The table has {rows} rows of {columns} columns, more than {MOST_CELLS} cells. Send parts.")


def _column(values: Sequence[Any]) -> Array:
    kinds = set(map(type, values))
    if kinds <= {int, float} and kinds:
        try:
            return np.array(values)
        except OverflowError:
            pass  # as objects below: the check says which input cannot hold it
    if kinds == {bool}:
        return np.array(values)
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array
