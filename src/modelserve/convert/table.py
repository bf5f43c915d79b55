"""The example of a model of tables: tensors by input name, and the way back to what the model itself takes.

    array, DataFrame ──read──► Table(specs, tensors) ──rebuild──► array, DataFrame

An array, or a DataFrame of numbers, is one input of shape (batch, columns); a DataFrame with text or categories, or
one whose columns are picked by name, has an input of shape (batch, 1) for each column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelserve.errors import ExampleRequiredError, SignatureError
from modelserve.tensors import Array, Tensors, TensorSpec

INPUT = "X"


@dataclass(frozen=True, slots=True)
class Table:
    """An example, read.

    Attributes:
        rebuild: Tensors like the example's as the model itself takes them.
        categories: By the name of an input: the categories of its column, in the order of their numbers.
    """

    specs: tuple[TensorSpec, ...]
    tensors: Tensors
    rebuild: Callable[[Tensors], Any]
    by_column: bool = False
    categories: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def is_wide(self) -> bool:
        """Whether it has numbers that float32 rounds."""
        return any(spec.dtype in {"float64", "int32", "int64", "uint32", "uint64"} for spec in self.specs)


def read_table(source: Any, example: Any, *, by_column: bool = False) -> Table:
    """The example for `source`, with every column an input of its own where `by_column` asks for it.

    Raises:
        ExampleRequiredError: there is none.
        SignatureError: it is no table, or holds what no tensor can.
    """
    if example is None:
        raise ExampleRequiredError(
            f"{type(source).__name__} does not say what it takes. Give rows of the data it was trained on: "
            f"Model(estimator, example=X[:8])"
        )
    if hasattr(example, "columns") and hasattr(example, "iloc"):
        return _read_frame(example, by_column)
    if hasattr(example, "toarray"):
        example = example.toarray()  # a sparse matrix
    try:
        array = np.asarray(example)
    except ValueError as error:
        raise SignatureError(f"The example cannot be read as one array ({error}).") from error
    if array.dtype.kind in "UO" and array.ndim == 1:
        return _read_text(array)
    if array.ndim != 2 or array.shape[0] == 0 or array.dtype.kind not in "biufUO":
        raise SignatureError(
            f"An example for {type(source).__name__} has rows and columns, got shape {array.shape} of {array.dtype}. "
            "Give X[:8], with at least one row."
        )
    dtype = "string" if array.dtype.kind in "UO" else array.dtype.name
    spec = TensorSpec(INPUT, dtype, ("batch", array.shape[1]))
    tensors = {INPUT: np.ascontiguousarray(_as_text(INPUT, array) if dtype == "string" else array)}
    return Table((spec,), tensors, lambda given: given[INPUT])


def _read_text(array: Array) -> Table:
    """Documents, one a row, as text vectorisers take them."""
    if array.shape[0] == 0:
        raise SignatureError("The example has no rows. Give at least one document, such as documents[:8].")
    spec = TensorSpec(INPUT, "string", ("batch",))
    return Table((spec,), {INPUT: _as_text(INPUT, array)}, lambda given: list(given[INPUT]))


def _read_frame(frame: Any, by_column: bool) -> Table:
    if len(frame) == 0:
        raise SignatureError("The example has no rows. Give at least one, such as df[:8].")
    names = [str(name) for name in frame.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SignatureError(f"The example has several columns {twice!r}. Keep the one that the model was trained on.")
    if not by_column and all(_is_plain_number(frame[name].dtype) for name in frame.columns):
        return _read_matrix(frame, names)
    return _read_columns(frame, names)


def _read_matrix(frame: Any, names: list[str]) -> Table:
    import pandas as pd

    matrix = np.ascontiguousarray(frame.to_numpy())
    spec = TensorSpec(INPUT, matrix.dtype.name, ("batch", len(names)), tuple(names))

    def rebuild(given: Tensors) -> Any:
        rows = pd.DataFrame(given[INPUT], columns=list(frame.columns))
        return rows.astype(dict(frame.dtypes), errors="ignore")

    return Table((spec,), {INPUT: matrix}, rebuild)


def _read_columns(frame: Any, names: list[str]) -> Table:
    import pandas as pd

    specs, tensors = [], {}
    categories: dict[str, Sequence[Any]] = {}
    for name, original in zip(names, frame.columns, strict=True):
        values = _column(name, frame[original])
        tensors[name] = values.reshape(-1, 1)
        specs.append(TensorSpec(name, "string" if values.dtype.kind == "O" else values.dtype.name, ("batch", 1)))
        if isinstance(frame[original].dtype, pd.CategoricalDtype):
            categories[name] = list(frame[original].cat.categories)

    def rebuild(given: Tensors) -> Any:
        columns = {original: given[name][:, 0] for name, original in zip(names, frame.columns, strict=True)}
        return pd.DataFrame(columns).astype(dict(frame.dtypes), errors="ignore")

    return Table(tuple(specs), tensors, rebuild, by_column=True, categories=categories)


def _column(name: str, column: Any) -> Array:
    """One column's values as numbers or as objects of type str."""
    dtype = column.dtype
    if _is_plain_number(dtype):
        return np.asarray(column.to_numpy())
    inner = getattr(getattr(dtype, "categories", None), "dtype", dtype)
    kind = getattr(inner, "kind", "O")
    if kind in "biuf":
        # A missing value makes it a floating number; pandas' own dtypes say which kind they hold.
        has_missing = bool(column.isna().any())
        target = np.float64 if has_missing or kind == "f" else np.bool_ if kind == "b" else np.int64
        return np.asarray(column.to_numpy(dtype=target, **({"na_value": np.nan} if has_missing else {})))
    if kind in "mMc":
        raise SignatureError(
            f"Column {name!r} is {dtype}, which no tensor holds. Turn it into numbers before the model, such as "
            "df[column].astype('int64'), and train it on those."
        )
    return _as_text(f"column {name}", column.to_numpy(dtype=object))


def _as_text(name: str, array: Array) -> Array:
    odd = next((item for item in array.ravel().tolist() if not isinstance(item, str)), None)
    found = [item for item in array.ravel().tolist() if not isinstance(item, str)]
    if found:
        missing = odd is None or odd != odd
        raise SignatureError(
            f"{name!r} holds {'missing text' if missing else f'{type(odd).__name__} {odd!r}'} among text, which no "
            "tensor of text can. "
            + ("Fill it first, such as df.fillna(''), and train on that." if missing else "Give a DataFrame instead.")
        )
    return array.astype(object)


def _is_plain_number(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"
