"""An example made up from a signature: enough to call a source with, always the same, and weaker than real rows.

Numbers are drawn from the standard normal distribution, whole numbers are 0 and 1, text is "a" and "b". Every axis of
any size gets a size of its own, so that no two are taken for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modelserve.tensors import Array, Signature, TensorSpec

_ROWS = 16
_SHORTEST = 5
#: Frameworks whose models take tables: several inputs of one column each are one DataFrame.
_OF_TABLES = {"sklearn", "xgboost", "lightgbm", "catboost"}


def made_up_example(source: Any, signature: Signature) -> Any:
    """Rows that fit the inputs of `signature`, in the form in which `source` takes them."""
    sizes = _sizes(signature)
    random = np.random.default_rng(0)
    arrays = {spec.name: _array(spec, sizes, random) for spec in signature.inputs}
    if _is_of_tables(source) and all(array.shape[1:] == (1,) for array in arrays.values()) and len(arrays) > 1:
        return _frame({name: array[:, 0] for name, array in arrays.items()})
    if len(arrays) > 1:
        return arrays
    spec, array = signature.inputs[0], next(iter(arrays.values()))
    return _frame(dict(zip(spec.columns, array.T, strict=True))) if spec.columns else array


def _sizes(signature: Signature) -> dict[str, int]:
    """The size of each axis of any size, by its name; the first axes are rows."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        for at, size in enumerate(spec.shape):
            if isinstance(size, str) and size not in sizes:
                sizes[size] = _ROWS if at == 0 else _SHORTEST + 2 * len(sizes)
    return sizes


def _array(spec: TensorSpec, sizes: Mapping[str, int], random: np.random.Generator) -> Array:
    shape = tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)
    dtype = spec.numpy_dtype
    if spec.dtype == "string":
        return np.array(["a", "b"], object)[random.integers(0, 2, shape)]
    if dtype.kind == "f":
        return np.asarray(random.normal(size=shape)).astype(dtype)
    return np.asarray(random.integers(0, 2, shape)).astype(dtype)


def _is_of_tables(source: Any) -> bool:
    return any(kind.__module__.partition(".")[0] in _OF_TABLES for kind in type(source).__mro__)


def _frame(columns: Mapping[str, Array]) -> Any:
    import pandas as pd

    return pd.DataFrame(dict(columns))
