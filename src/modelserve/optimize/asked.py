"""A session asked about rows, and what two sets of answers have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelserve.errors import OptimizationError, PlanError
from modelserve.optimize.data import Rows
from modelserve.optimize.metrics import Answers
from modelserve.tensors import Array

# Of a row's largest magnitude: sums taken in another order, some hundred layers deep.
_ROUNDING = 1e-3


def answers(session: Any, rows: Rows) -> dict[str, Array]:
    """Every output of a session for these rows."""
    names = [value.name for value in session.get_outputs()]
    try:
        parts = [session.run(names, batch) for batch in rows.batches()]
    except Exception as error:  # onnxruntime raises classes of its C++ side without a common root
        raise OptimizationError(f"onnxruntime cannot run it on these rows: {error}") from error
    found = {name: np.concatenate([np.asarray(part[index]) for part in parts]) for index, name in enumerate(names)}
    if any(len(array) != len(rows) for array in found.values()):
        raise PlanError("The model does not answer one row for each row given, so that there is nothing to judge.")
    return found


def are_finite(wanted: Answers, got: Answers) -> bool:
    """Whether no number was lost that the original gives."""
    floats = {name: array for name, array in got.items() if array.dtype.kind == "f"}
    return all(np.isfinite(array[np.isfinite(wanted[name])]).all() for name, array in floats.items())


def are_same(wanted: Answers, got: Answers) -> bool:
    """Whether no number differs by more than rounding."""
    for name, before in wanted.items():
        if before.dtype.kind == "f":
            scale = np.abs(before).reshape(len(before), -1).max(axis=1, initial=1e-6)
            error = np.abs(before - got[name]).reshape(len(before), -1).max(axis=1, initial=0.0)
            if (error > _ROUNDING * scale).any():
                return False
    return True
