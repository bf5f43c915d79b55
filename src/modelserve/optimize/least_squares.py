"""In which order units can go, and how the next layer makes up for those that go.

    inputs of the next layer ──► Gram matrix G ──► backward elimination ──► order, errors ──► weights by least squares

The elimination removes, again and again, the units whose loss the others can make up for best. Removing a group g adds
the error trace(Wg' · inv(inv(G)gg) · Wg) (Hassibi & Stork's optimal brain surgeon, for groups).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from modelserve.tensors import Array

_RIDGE = 1e-4
#: Units are removed in so many steps; each step needs one pass over the matrix.
_STEPS = 64


class Elimination(NamedTuple):
    """All units of one place, the first to go first.

    Attributes:
        errors: What the next layer's outputs have lost when so many units are gone, as a share of their power;
            `errors[0]` is 0.
    """

    order: Array
    errors: Array

    def kept(self, count: int) -> Array:
        """Sorted indices of the `count` units that stay."""
        return np.sort(self.order[len(self.order) - count :])


def eliminate(gram: Array, weights: Array, *, columns: int) -> Elimination:
    """Remove all units but one, those first that the others can make up for best.

    Args:
        gram: Second moments of the next layer's inputs, (units * columns) squared.
        weights: The next layer's, (units * columns, outputs).
    """
    units = weights.shape[0] // columns
    power = max(float((weights * (gram @ weights)).sum()), 1e-300)
    inverse = np.linalg.inv(ridged(gram))
    solution = weights.astype(np.float64).copy()
    alive = np.arange(units)
    chunk = max(1, units // _STEPS)
    order: list[Array] = []
    errors = [0.0]
    while len(alive) > 1:
        scores = _added_errors(inverse, solution, alive, columns)
        gone = alive[np.argsort(scores, kind="stable")[: min(chunk, len(alive) - 1)]]
        added = _remove(inverse, solution, expand(gone, columns)) / power
        errors += [errors[-1] + added * (index + 1) / len(gone) for index in range(len(gone))]
        order.append(gone)
        alive = np.setdiff1d(alive, gone)
    return Elimination(np.concatenate([*order, alive]), np.array(errors))


def allocate(eliminations: list[Elimination], counts: list[int], goal: int, *, multiple: int) -> list[int]:
    """How many units each place keeps, `goal` in all, so that the places lose as little as possible together.

    Args:
        counts: The units of each place. None keeps fewer than `multiple`, except where it has fewer.
    """
    kept = list(counts)
    while sum(kept) > goal:
        prices = [
            _price(found, count, multiple) if count > multiple else np.inf
            for found, count in zip(eliminations, kept, strict=True)
        ]
        cheapest = int(np.argmin(prices))
        if not np.isfinite(prices[cheapest]):
            break
        # The first step goes to a multiple, which fills the vector registers.
        kept[cheapest] -= kept[cheapest] % multiple or multiple
    return kept


def _price(found: Elimination, kept: int, multiple: int) -> float:
    gone = len(found.order) - kept
    step = kept % multiple or multiple
    return float(found.errors[gone + step] - found.errors[gone]) / step


def _remove(inverse: Array, solution: Array, rows: Array) -> float:
    """Take these rows out, correcting the others in place; the error that this adds."""
    outputs = solution.shape[1]
    correction = np.linalg.solve(inverse[np.ix_(rows, rows)], np.hstack([solution[rows], inverse[rows]]))
    added = float((solution[rows] * correction[:, :outputs]).sum())
    step = inverse[:, rows] @ correction
    solution -= step[:, :outputs]
    inverse -= step[:, outputs:]
    # What is gone no longer takes part; ones on its diagonal keep the matrix invertible.
    inverse[rows], inverse[:, rows], solution[rows] = 0.0, 0.0, 0.0
    inverse[rows, rows] = 1.0
    return added


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
