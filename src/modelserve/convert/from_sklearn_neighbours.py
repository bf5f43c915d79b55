"""Models of nearest neighbours that answer differently with every way of searching them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor

from modelserve.errors import UnsupportedSourceError
from modelserve.tensors import Array

_ROWS = 1000
_MORE = 8
# Of the distance: below this two are equal, and rounding decides which one is the nearer.
_EQUAL = 1e-9
_ASKS_NEAREST = {KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor}


def refuse_ties(estimator: Any) -> None:
    """Refuse a model of nearest neighbours where several training rows are equally near, and say different things.

    Which of them scikit-learn takes follows from how its search trees are laid out; a portable graph takes the first.

    Raises:
        UnsupportedSourceError: some of the training rows themselves are answered by such a choice.
    """
    if type(estimator) not in _ASKS_NEAREST or estimator.n_samples_fit_ < 2:
        return
    rows = estimator._fit_X[:_ROWS]  # noqa: SLF001  # there is no public way to the training rows
    neighbours = getattr(estimator, "n_neighbors_", estimator.n_neighbors)
    count = min(neighbours + _MORE, estimator.n_samples_fit_)
    distances, places = estimator.kneighbors(rows, n_neighbors=count)
    tied = int(_is_tied(distances, _said(estimator)[places], neighbours).sum())
    if tied:
        raise UnsupportedSourceError(
            f"{type(estimator).__name__} has training rows that are equally near, and say different things: {tied} of "
            f"{rows.shape[0]} are answered by which of them its search meets first, which no portable form reproduces. "
            "Leave out rows that occur twice, or columns of few different values; or use another model."
        )


def _said(estimator: Any) -> Array:
    """What each training row tells those near to it: (rows,), or (rows, numbers)."""
    if isinstance(estimator, LocalOutlierFactor):
        # How far its own neighbours reach, and how dense it lies.
        reach = estimator._distances_fit_X_[:, -1]  # there is no public way
        return np.stack([reach, estimator._lrd], axis=1)  # noqa: SLF001  # as above
    return np.asarray(estimator._y)  # noqa: SLF001  # as above


def _is_tied(distances: Array, targets: Array, neighbours: int) -> Array:
    """Rows whose last neighbour is as near as one that is left out, while the two have different targets."""
    if distances.shape[1] <= neighbours:
        return np.zeros(len(distances), bool)
    last = distances[:, neighbours - 1 : neighbours]
    group = np.abs(distances - last) <= _EQUAL * np.maximum(last, np.finfo(float).tiny)
    is_cut = group[:, neighbours]
    spread = targets.reshape(*targets.shape[:2], -1)
    first = np.take_along_axis(spread, np.argmax(group, axis=1)[:, None, None], axis=1)
    differs = (group[:, :, None] & (spread != first)).any(axis=(1, 2))
    result: Array = is_cut & differs
    return result
