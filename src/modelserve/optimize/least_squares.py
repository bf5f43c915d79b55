"""Which units to keep, and how the next layer makes up for those that go.

    inputs of the next layer ──► Gram matrix G ──► backward elimination ──► kept units ──► weights by least squares

The elimination removes, again and again, the units whose loss the others can make up for best. Removing a group g adds
the error trace(Wg' · inv(inv(G)gg) · Wg) (Hassibi & Stork's optimal brain surgeon, for groups).
"""

from __future__ import annotations

import numpy as np

from modelserve.tensors import Array

_RIDGE = 1e-4
#: Units are removed in so many steps; each step needs one pass over the matrix.
_STEPS = 64


def kept_units(gram: Array, weights: Array, *, columns: int, keep: int) -> Array:
    """Sorted indices of the `keep` units that stay.

    Args:
        gram: Second moments of the next layer's inputs, (units * columns) squared.
        weights: The next layer's, (units * columns, outputs).
    """
    units = weights.shape[0] // columns
    inverse = np.linalg.inv(ridged(gram))
    solution = weights.astype(np.float64).copy()
    alive = np.arange(units)
    chunk = max(1, (units - keep) // _STEPS)
    while len(alive) > keep:
        scores = _added_errors(inverse, solution, alive, columns)
        gone = alive[np.argsort(scores, kind="stable")[: min(chunk, len(alive) - keep)]]
        rows = expand(gone, columns)
        correction = np.linalg.solve(inverse[np.ix_(rows, rows)], np.hstack([solution[rows], inverse[rows]]))
        step = inverse[:, rows] @ correction
        solution -= step[:, : solution.shape[1]]
        inverse -= step[:, solution.shape[1] :]
        alive = np.setdiff1d(alive, gone)
        # What is gone no longer takes part; ones on its diagonal keep the matrix invertible.
        inverse[rows], inverse[:, rows], solution[rows] = 0.0, 0.0, 0.0
        inverse[rows, rows] = 1.0
    return alive


def solve(gram: Array, cross: Array, weights: Array) -> Array:
    """Weights for the kept inputs that reproduce the old outputs best.

    Args:
        gram: Second moments of the kept inputs, (kept, kept).
        cross: Of the kept inputs with all the old ones, (kept, all).
        weights: The old ones, (all, outputs).
    """
    solution: Array = np.linalg.solve(ridged(gram), cross @ weights)
    return solution


def ridged(gram: Array) -> Array:
    """A Gram matrix that can be inverted."""
    scale = float(np.trace(gram)) / len(gram)
    return gram + _RIDGE * max(scale, 1e-12) * np.eye(len(gram))


def expand(units: Array, columns: int) -> Array:
    """The columns of these units."""
    return (units[:, None] * columns + np.arange(columns)).ravel()


def _added_errors(inverse: Array, solution: Array, alive: Array, columns: int) -> Array:
    if columns == 1:
        alone: Array = np.square(solution[alive]).sum(axis=1) / np.diag(inverse)[alive]
        return alone
    rows = expand(alive, columns).reshape(len(alive), columns)
    blocks = inverse[rows[:, :, None], rows[:, None, :]]
    parts = solution[rows]
    errors: Array = np.einsum("uco,uco->u", parts, np.linalg.solve(blocks, parts))
    return errors
