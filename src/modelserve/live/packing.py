"""An example as tensors by name, and the way back from such tensors to what a source itself takes.

array, list, tuple, dict, DataFrame ──read_example──► tensors by name ──Packing──► (args, kwargs)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from modelserve.errors import SignatureError
from modelserve.tensors import Array, Tensors

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


class Style(Enum):
    """In which form a source takes its inputs."""

    POSITIONAL = "one argument each, in order"
    KEYWORD = "one argument each, by name"
    LIST = "one list of all"
    MAPPING = "one dict by name"
    FRAME = "one DataFrame, a column each"
    MATRIX_FRAME = "one DataFrame, all columns of one tensor"


@dataclass(frozen=True, slots=True)
class Packing:
    """The way from tensors by name to a call's arguments.

    Attributes:
        columns: The columns' own names where the source takes a DataFrame, in order.
        dtypes: The columns' own dtypes, by their names.
    """

    names: tuple[str, ...]
    style: Style
    columns: tuple[Any, ...] = ()
    dtypes: Mapping[Any, Any] = field(default_factory=dict)

    def __call__(self, tensors: Mapping[str, Any]) -> Arguments:
        values = [tensors[name] for name in self.names]
        match self.style:
            case Style.POSITIONAL:
                return tuple(values), {}
            case Style.KEYWORD:
                return (), dict(zip(self.names, values, strict=True))
            case Style.LIST:
                return (values,), {}
            case Style.MAPPING:
                return (dict(zip(self.names, values, strict=True)),), {}
            case _:
                return (self._frame(values),), {}

    def _frame(self, values: Sequence[Array]) -> Any:
        import pandas as pd

        if self.style is Style.MATRIX_FRAME:
            frame = pd.DataFrame(values[0], columns=list(self.columns))
        else:
            columns = [array.reshape(array.shape[0]) for array in values]
            frame = pd.DataFrame(dict(zip(self.columns, columns, strict=True)))
        # What holds NaN now cannot become a whole number again, and stays as it is.
        return frame.astype(dict(self.dtypes), errors="ignore")


class Example(NamedTuple):
    """Inputs that a source takes, and how they become its arguments again.

    Attributes:
        columns: For one tensor that holds a table: the columns' names.
    """

    tensors: Tensors
    packing: Packing
    columns: tuple[str, ...] = ()


def read_example(example: Any, parameters: Sequence[str], *, takes_names: bool = False, joins: bool = False) -> Example:
    """Name an example's tensors as the source's parameters are named.

    Args:
        parameters: Names of what the source takes by position; may be shorter than the example, or empty.
        takes_names: Whether a dict's keys are the source's own parameters.
        joins: Whether the source takes several inputs as one list, as Keras models do.

    Raises:
        SignatureError: it holds something that is neither numbers nor text, or no rows.
    """
    if hasattr(example, "columns") and hasattr(example, "iloc"):
        return _read_frame(example)
    if isinstance(example, Mapping):
        names = tuple(str(name) for name in example)
        style = Style.KEYWORD if takes_names else Style.MAPPING
        values = list(example.values())
    else:
        values = list(example) if isinstance(example, tuple) else [example]
        names = _names(parameters, len(values))
        style = Style.LIST if joins and len(values) > 1 else Style.POSITIONAL
    tensors = {name: as_array(name, value) for name, value in zip(names, values, strict=True)}
    return Example(tensors, Packing(names, style))


def as_array(name: str, value: Any) -> Array:
    """A value as an array of numbers, truth values or text (objects of type str).

    Raises:
        SignatureError: it is none of these, or has no rows.
    """
    # A tensor that takes part in a gradient refuses to be read.
    plain = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    try:
        array = np.asarray(plain)
    except (ValueError, TypeError) as error:
        raise SignatureError(f"The example for {name!r} cannot be read as one array ({error}).") from error
    if array.dtype.kind in "UT":
        array = array.astype(object)
    is_text = array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat)
    if not (is_text or array.dtype.kind in "biuf") or array.size == 0:
        raise SignatureError(
            f"The example for {name!r} must be numbers or text with at least one row, got {array.dtype} of shape "
            f"{array.shape}."
        )
    return np.ascontiguousarray(array) if array.ndim else array


def named(answer: Any, to_array: Callable[[str, Any], Array]) -> dict[str, Array]:
    """A source's answer as arrays by name: a dict's own keys, a named tuple's fields, "output", or counted.

    Raises:
        SignatureError: a part of it is neither numbers nor text.
    """
    if isinstance(answer, Mapping):
        parts = {str(name): value for name, value in answer.items() if value is not None}
    elif hasattr(answer, "columns") and hasattr(answer, "iloc"):
        parts = {str(name): answer[name].to_numpy() for name in answer.columns}
    elif isinstance(answer, tuple):
        counted = [f"output_{index}" for index in range(len(answer))]
        fields = getattr(answer, "_fields", counted)
        parts = {name: value for name, value in zip(fields, answer, strict=True) if value is not None}
    else:
        parts = {"output": answer}
    return {name: to_array(name, value) for name, value in parts.items()}


def _names(parameters: Sequence[str], count: int) -> tuple[str, ...]:
    if len(parameters) >= count:
        return tuple(parameters[:count])
    return ("inputs",) if count == 1 else tuple(f"input_{index}" for index in range(count))


def _read_frame(frame: Any) -> Example:
    if len(frame) == 0:
        raise SignatureError("The example has no rows. Give at least one, such as df[:8].")
    columns = tuple(frame.columns)
    names = tuple(str(name) for name in columns)
    if len(set(names)) != len(names):
        raise SignatureError(f"The example's columns must differ by name, got {', '.join(names)}.")
    dtypes = dict(frame.dtypes)
    if all(dtype.kind in "biuf" for dtype in dtypes.values()):
        packing = Packing(("X",), Style.MATRIX_FRAME, columns, dtypes)
        return Example({"X": np.ascontiguousarray(frame.to_numpy())}, packing, names)
    tensors = {name: _column(name, frame[column]) for name, column in zip(names, columns, strict=True)}
    return Example(tensors, Packing(names, Style.FRAME, columns, dtypes))


def _column(name: str, series: Any) -> Array:
    values = series.to_numpy()
    return as_array(name, values).reshape(-1, 1)
