"""Whether rows are answered one by one, so that requests may be joined and split."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelserve.errors import ModelServeError
from modelserve.fidelity.comparison import Answer
from modelserve.tensors import Array, Signature, Tensors

# Of the row's largest magnitude: a float32 sum taken in another order.
_ROUNDING = 1e-5
_MOST_ROWS = 8


def rows_are_independent(candidate: Answer, signature: Signature, tensors: Tensors) -> bool:
    """Whether every row is answered alike alone and among others: tried on the rows of `tensors`, 8 at most."""
    if not signature.is_batched:
        return False
    rows = min(_MOST_ROWS, next(iter(tensors.values())).shape[0])
    several = {name: np.resize(array[:rows], (max(rows, 2), *array.shape[1:])) for name, array in tensors.items()}
    try:
        together = candidate(several)
        alone = [candidate({name: array[row : row + 1] for name, array in several.items()}) for row in range(rows)]
    except ModelServeError:
        return False
    return all(
        array.ndim > 0
        and array.shape[0] == max(rows, 2)
        and all(_same_row(array[row], alone[row][name]) for row in range(rows))
        for name, array in together.items()
    )


def _same_row(together: Any, alone: Array) -> bool:
    """Whether one row is answered alike; among more rows sums are taken in another order, which moves numbers a bit."""
    together = np.asarray(together)
    if alone.ndim == 0 or alone.shape[0] != 1 or alone.shape[1:] != together.shape:
        return False
    if together.dtype.kind != "f":
        return bool(np.array_equal(together, alone[0]))
    finite = np.abs(together[np.isfinite(together)]).max(initial=0.0)
    return bool(np.allclose(together, alone[0], rtol=0.0, atol=_ROUNDING * float(finite), equal_nan=True))
