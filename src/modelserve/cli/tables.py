"""Rows in files, in and out: .npy, .npz, .csv, .json, .jsonl.

    file ──read──► Rows | Table ──arranged──► what Signature.check takes

Numbers from text are plain Python numbers, so that they may become the model's dtype; those of .npy and .npz have a
dtype of their own, and are not narrowed in silence.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from modelserve.errors import InputError, SignatureError
from modelserve.tensors import Array, Signature, TensorSpec

KINDS = (".npy", ".npz", ".csv", ".json", ".jsonl")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length by name.

    Attributes:
        is_named: Whether the names were given, and not made up.
        texts: The cells as they were written, where the columns' values were made from text.
    """

    columns: Mapping[str, Sequence[Any]]
    is_named: bool = True
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def values(self, name: str, spec: TensorSpec) -> Sequence[Any]:
        """A column for `spec`: a model of text is given 007 as it stands, not as the number 7."""
        return self.texts.get(name, self.columns[name]) if spec.dtype == "string" else self.columns[name]


Content: TypeAlias = Table | Array | list[Any] | dict[str, Any]


def read(path: Path) -> Content:
    """What a file holds; `-` is standard input with JSON lines.

    Raises:
        InputError: there is no such file, it is of no known kind, or it cannot be read as what its name says.
    """
    if str(path) == "-":
        return _from_lines(sys.stdin.read(), "standard input")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{str(path)!r} is of no known kind; known are {', '.join(KINDS)}.")
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    try:
        return reader(path)
    except (ValueError, OSError, KeyError, EOFError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} cannot be read as {path.suffix}: {error}") from error


def arranged(content: Content, signature: Signature) -> Any:
    """A table's columns as the model's inputs; everything else as it is.

    Raises:
        SignatureError: a column that the model needs is missing.
    """
    if not isinstance(content, Table):
        return content
    if len(signature.inputs) == 1:
        return _as_one(content, signature.inputs[0])
    _check_columns(content, [spec.name for spec in signature.inputs])
    return {spec.name: _as_column(spec, content.values(spec.name, spec)) for spec in signature.inputs}


def example(content: Content) -> Any:
    """A file's rows as an example, before any signature is known."""
    if not isinstance(content, Table):
        return np.asarray(content) if isinstance(content, list) else content
    columns = [np.asarray(values) for values in content.columns.values()]
    if any(array.dtype.kind not in "biuf" for array in columns):
        return dict(zip(content.columns, columns, strict=True))
    return np.stack(columns, axis=1)


def _as_one(table: Table, spec: TensorSpec) -> list[Any]:
    if spec.columns and table.is_named:
        _check_columns(table, spec.columns)
        columns = [table.values(name, spec) for name in spec.columns]
    elif list(table.columns) == [spec.name]:
        return _as_column(spec, table.values(spec.name, spec))
    else:
        columns = [table.values(name, spec) for name in table.columns]
    if len(spec.shape) == 1 and len(columns) == 1:
        return list(columns[0])
    return [list(row) for row in zip(*columns, strict=True)]


def _as_column(spec: TensorSpec, values: Sequence[Any]) -> list[Any]:
    # A column of single values fits a model that wants it as a table of one column.
    is_flat = not values or not isinstance(values[0], list)
    return [[value] for value in values] if len(spec.shape) == 2 and is_flat else list(values)


def _check_columns(table: Table, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise SignatureError(
            f"The table lacks the column(s) {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, table.columns))}. Name the columns as the model's inputs."
        )


def _read_npy(path: Path) -> Content:
    array: Array = np.load(path, allow_pickle=False)
    return _as_text(array)


def _read_npz(path: Path) -> Content:
    with np.load(path, allow_pickle=False) as stored:
        return {name: _as_text(stored[name]) for name in stored.files}


def _read_csv(path: Path) -> Content:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if not lines:
        raise InputError(f"{str(path)!r} has no rows.")
    has_header = any(_number(cell) is None for cell in lines[0])
    names = lines[0] if has_header else [str(index) for index in range(len(lines[0]))]
    rows = lines[1:] if has_header else lines
    for number, row in enumerate(rows, 2 if has_header else 1):
        if len(row) != len(names):
            raise InputError(f"{str(path)!r}: row {number} has {len(row)} cells, expected {len(names)}.")
    if not rows:
        raise InputError(f"{str(path)!r} has column names and no rows.")
    if len(set(names)) != len(names):
        raise InputError(f"{str(path)!r} names a column twice: {', '.join(names)}.")
    texts = dict(zip(names, zip(*rows, strict=True), strict=True))
    return Table({name: _parsed(cells) for name, cells in texts.items()}, has_header, texts)


def _read_json(path: Path) -> Content:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, list):
        return _from_rows(content, str(path))
    if isinstance(content, dict):
        return content
    raise InputError(f"{str(path)!r} must hold a list of rows or an object of inputs, got {type(content).__name__}.")


def _read_jsonl(path: Path) -> Content:
    return _from_lines(path.read_text(encoding="utf-8"), str(path))


def _from_lines(text: str, where: str) -> Content:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise InputError(f"{where}: line {number} is not JSON ({error}).") from error
    if not rows:
        raise InputError(f"{where} has no rows.")
    return _from_rows(rows, where)


def _from_rows(rows: list[Any], where: str) -> Content:
    if not rows or not all(isinstance(row, dict) for row in rows):
        return rows
    names = list(rows[0])
    for number, row in enumerate(rows, 1):
        if set(row) != set(names):
            raise InputError(f"{where}: row {number} has the keys {', '.join(row)}, the first {', '.join(names)}.")
    return Table({name: [row[name] for row in rows] for name in names})


def _parsed(cells: Sequence[str]) -> list[Any]:
    numbers = [_number(cell) for cell in cells]
    if all(number is not None for number in numbers):
        return numbers
    # Empty cells among numbers are missing values.
    if all(number is not None or not cell for number, cell in zip(numbers, cells, strict=True)) and any(cells):
        return [float("nan") if number is None else number for number in numbers]
    return list(cells)


def _number(cell: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return None


def _as_text(array: Array) -> Array:
    return array.astype(object) if array.dtype.kind == "U" else array


_READERS: Mapping[str, Callable[[Path], Content]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
}
