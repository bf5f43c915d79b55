"""Whatever the caller has, as one value for each input by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelserve.errors import SignatureError
from modelserve.tensors.fit import as_dtype
from modelserve.tensors.spec import Array, TensorSpec


def by_name(specs: Sequence[TensorSpec], inputs: Any) -> dict[str, Any]:
    """One value for each input; columns of a table that is one input are put side by side.

    Raises:
        SignatureError: names are missing or unknown, or there are too few or too many values.
    """
    names = [spec.name for spec in specs]
    if _is_frame(inputs):
        return _from_frame(specs, inputs)
    if isinstance(inputs, Mapping):
        return _from_mapping(specs, inputs)
    wanted = _wanted(specs)
    if wanted and _is_row(inputs, wanted):
        return _from_mapping(specs, {name: inputs[name] for name in inputs.index if str(name) in wanted})
    if len(specs) == 1:
        return {names[0]: inputs}
    if isinstance(inputs, tuple):
        if len(inputs) != len(specs):
            raise SignatureError(
                f"The model takes {len(specs)} inputs ({', '.join(names)}), got a tuple of {len(inputs)}."
            )
        return dict(zip(names, inputs, strict=True))
    raise SignatureError(
        f"The model takes {len(specs)} inputs ({', '.join(names)}), got one {type(inputs).__name__}. "
        f"Give a dict: {{{', '.join(f'{name!r}: ...' for name in names)}}}."
    )


def _wanted(specs: Sequence[TensorSpec]) -> list[str]:
    """The columns of a table that the model takes, if it takes one."""
    return list(specs[0].columns) if len(specs) == 1 else [spec.name for spec in specs]


def _is_row(inputs: Any, wanted: Sequence[str]) -> bool:
    """Whether this is one row of a table with its columns' names, as `df.iloc[0]` is."""
    if not hasattr(inputs, "index") or not hasattr(inputs, "to_dict"):
        return False
    return {str(name) for name in inputs.index} >= set(wanted)


def _from_mapping(specs: Sequence[TensorSpec], inputs: Mapping[Any, Any]) -> dict[str, Any]:
    names = [spec.name for spec in specs]
    columns = specs[0].columns if len(specs) == 1 else ()
    by_column = bool(columns) and names[0] not in inputs
    wanted = list(columns) if by_column else names
    given = {str(name): value for name, value in inputs.items()}
    unknown = [name for name in given if name not in wanted]
    missing = [name for name in wanted if name not in given]
    if unknown or missing:
        wrong = [f"unknown: {', '.join(map(repr, unknown))}"] if unknown else []
        wrong += [f"missing: {', '.join(map(repr, missing))}"] if missing else []
        raise SignatureError(
            f"The inputs are {', '.join(map(repr, wanted))}; {'; '.join(wrong)}. Use exactly the model's names."
        )
    return {names[0]: _row_or_table(specs[0], [given[name] for name in wanted])} if by_column else given


def _row_or_table(spec: TensorSpec, values: Sequence[Any]) -> Any:
    """Columns by name as the one tensor that they are; one value each is one row."""
    if all(np.ndim(value) == 0 for value in values):
        return list(values)
    sizes = {name: np.shape(value) for name, value in zip(spec.columns, values, strict=True)}
    if len(set(sizes.values())) > 1 or len(next(iter(sizes.values()))) != 1:
        raise SignatureError(
            f"The columns of one table must be of one length, got {', '.join(f'{n!r}: {s}' for n, s in sizes.items())}."
        )
    if any(hasattr(value, "dtype") for value in values):
        return _side_by_side(spec, [np.asarray(value) for value in values])
    return [list(row) for row in zip(*values, strict=True)]


def _is_frame(inputs: Any) -> bool:
    # Recognised by what it can do, so that neither pandas nor polars is imported.
    return hasattr(inputs, "columns") and hasattr(inputs, "__getitem__") and not isinstance(inputs, Mapping)


def _from_frame(specs: Sequence[TensorSpec], frame: Any) -> dict[str, Any]:
    found = [str(name) for name in frame.columns]
    if len(specs) == 1 and not specs[0].columns:
        return {specs[0].name: frame.to_numpy()}
    wanted = _wanted(specs)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SignatureError(
            f"The table lacks the column(s) {', '.join(map(repr, missing))}; it has {', '.join(map(repr, found))}."
        )
    twice = [name for name in wanted if found.count(name) > 1]
    if twice:
        raise SignatureError(f"The table has several columns {twice[0]!r}. Keep the one that is meant.")
    originals = dict(zip(found, frame.columns, strict=True))
    picked = [frame[originals[name]].to_numpy() for name in wanted]
    if len(specs) == 1:
        return {specs[0].name: _side_by_side(specs[0], picked)}
    return {
        spec.name: array.reshape(-1, 1) if len(spec.shape) == 2 else array
        for spec, array in zip(specs, picked, strict=True)
    }


def _side_by_side(spec: TensorSpec, columns: Sequence[Array]) -> Array:
    if len({column.dtype for column in columns}) > 1 and columns[0].size:
        # Joined as they are, numpy would find them a common dtype, and round large whole numbers beside fractions.
        columns = [
            as_dtype(replace(spec, name=name), column, typed=True)
            for name, column in zip(spec.columns, columns, strict=True)
        ]
    return np.stack(columns, axis=1)
