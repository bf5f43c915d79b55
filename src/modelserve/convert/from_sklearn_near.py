"""Models of scikit-learn that ask training rows nearby, drawn as sums over those rows.

    x ──distances──► (rows, training rows) ──those within the radius, or the nearest──► weights ──► sums ──► answers

Drawn here are all within a radius, on which skl2onnx errs, and the nearest weighed by their distance, on which it errs
where a training row itself is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelserve.convert.drawing import Drawing, Part, gather
from modelserve.convert.forest import as_labels, label
from modelserve.convert.from_sklearn_standins import ClassifierStandIn, RegressorStandIn
from modelserve.errors import UnsupportedSourceError
from modelserve.tensors import Array

# Numbers held for each row that is asked: one for every feature of every training row.
_MOST_NUMBERS = 2_000_000
_POWERS = {"euclidean": 2, "manhattan": 1}
_WEIGHTS = {"uniform", "distance", None}


def within_radius_class(part: Any, _last: bool) -> Any:
    """A RadiusNeighborsClassifier of one output."""
    if part.outputs_2d_ or not _is_drawn(part):
        return None
    classes, outlier, votes = part.classes_, part.outlier_label_, _votes(part)
    # Behind the classes stands what answers a row without neighbours; where the model refuses such rows nothing does,
    # and the runtime refuses them, as the label that they ask for is not there.
    labels = classes if outlier is None or outlier[0] in classes else np.append(classes, outlier[0])
    alone = len(classes)
    if outlier is not None and len(labels) == len(classes):
        alone = int(np.flatnonzero(classes == outlier[0])[0])

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        weights = _within(part, gather(parts, drawing, double=double), drawing, double)
        sums = drawing.add("MatMul", [weights, drawing.row(votes, double)])
        total = _total(sums, drawing)
        is_alone = drawing.add("Equal", [total, drawing.row(np.zeros(1), double)])
        shares = drawing.add("Div", [sums, drawing.add("Where", [is_alone, drawing.row(np.ones(1), double), total])])
        best = drawing.add("ArgMax", [sums], axis=1, keepdims=0)
        at = drawing.add("Where", [drawing.flat(is_alone), drawing.weight(np.array(alone, np.int64)), best])
        if alone < len(classes):
            shares = drawing.add("Where", [is_alone, drawing.row(np.eye(len(classes))[[alone]], double), shares])
        named = drawing.add("Gather", [drawing.weight(as_labels(labels)), at], axis=0)
        return {"label": named, "probabilities": shares}

    return _jumping(ClassifierStandIn(paint, classes))


def within_radius_value(part: Any, _last: bool) -> Any:
    """A RadiusNeighborsRegressor."""
    if not _is_drawn(part):
        return None
    table = _targets(part)
    # What stands for a row without neighbours: NaN, or what scikit-learn makes of it among whole numbers.
    with np.errstate(invalid="ignore"):
        empty = np.full_like(part._y[:1], np.nan).astype(np.float64).reshape(1, -1)  # noqa: SLF001  # no public way

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        weights = _within(part, gather(parts, drawing, double=double), drawing, double)
        total = _total(weights, drawing)
        is_alone = drawing.add("Equal", [total, drawing.row(np.zeros(1), double)])
        means = drawing.add("Div", [drawing.add("MatMul", [weights, drawing.row(table, double)]), total])
        return {"value": drawing.add("Where", [is_alone, drawing.row(empty, double), means])}

    return _jumping(RegressorStandIn(paint, table.shape[1]))


def nearest_class(part: Any, _last: bool) -> Any:
    """A KNeighborsClassifier of one output that weighs by distance."""
    if part.outputs_2d_ or part.weights != "distance" or not _is_drawn(part):
        return None
    classes, votes = part.classes_, _votes(part)

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        shares = _nearest_means(part, votes, gather(parts, drawing, double=double), drawing, double)
        # Two classes have two shares here, and not one score.
        best = label(shares, max(len(classes), 2), classes, drawing)
        return {"label": best, "probabilities": shares}

    return _jumping(ClassifierStandIn(paint, classes))


def nearest_value(part: Any, _last: bool) -> Any:
    """A KNeighborsRegressor that weighs by distance."""
    if part.weights != "distance" or not _is_drawn(part):
        return None
    table = _targets(part)

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        return {"value": _nearest_means(part, table, gather(parts, drawing, double=double), drawing, double)}

    return _jumping(RegressorStandIn(paint, table.shape[1]))


def _jumping(stand_in: Any) -> Any:
    # Which rows are near can change with a number's rounding.
    stand_in.jumps = True
    return stand_in


def _is_drawn(part: Any) -> bool:
    """Whether distances and weights are drawn here.

    Raises:
        UnsupportedSourceError: they are, and there are too many training rows.
    """
    if part.effective_metric_ not in _POWERS or callable(part.weights) or part.weights not in _WEIGHTS:
        return False
    rows, features = part._fit_X.shape  # noqa: SLF001  # there is no public way to the training rows
    if rows * features > _MOST_NUMBERS:
        raise UnsupportedSourceError(
            f"{type(part).__name__} has {rows} training rows of {features} features, all of which its portable form "
            f"would compare with every row asked; up to {_MOST_NUMBERS:,} numbers are. Train it on fewer rows."
        )
    return True


def _votes(part: Any) -> Array:
    """One 1 for each training row, at its class."""
    votes: Array = np.eye(len(part.classes_))[np.asarray(part._y).reshape(-1)]  # noqa: SLF001  # as above
    return votes


def _targets(part: Any) -> Array:
    targets = np.asarray(part._y, np.float64)  # noqa: SLF001  # as above
    return targets.reshape(len(targets), -1)


def _distances(part: Any, x: str, drawing: Drawing, double: bool) -> str:
    """To each training row, to the power of the metric; (rows, training rows)."""
    known = np.asarray(part._fit_X, np.float64)  # noqa: SLF001  # as above
    row = drawing.add("Unsqueeze", [x, drawing.weight(np.array([1], np.int64))])
    apart = drawing.add("Abs", [drawing.add("Sub", [row, drawing.row(known[np.newaxis], double)])])
    powered = drawing.add("Mul", [apart, apart]) if _POWERS[part.effective_metric_] == 2 else apart
    return drawing.add("ReduceSum", [powered, drawing.weight(np.array([2], np.int64))], keepdims=0)


def _within(part: Any, x: str, drawing: Drawing, double: bool) -> str:
    """What each training row counts for each row asked; 0 beyond the radius. (rows, training rows)."""
    powered = _distances(part, x, drawing, double)
    radius = float(part.radius) ** _POWERS[part.effective_metric_]
    is_near = drawing.add("LessOrEqual", [powered, drawing.row(np.array(radius), double)])
    counts = _inverse(part, powered, drawing, double) if part.weights == "distance" else drawing.row(np.ones(1), double)
    return drawing.add("Where", [is_near, counts, drawing.row(np.zeros(1), double)])


def _nearest_means(part: Any, table: Array, x: str, drawing: Drawing, double: bool) -> str:
    """The means of the nearest rows' entries in the table, weighed by distance; (rows, columns of the table)."""
    powered = _distances(part, x, drawing, double)
    values, places = f"{powered}_nearest", f"{powered}_places"
    count = drawing.weight(np.array([part.n_neighbors], np.int64))
    drawing.add_both("TopK", [powered, count], [values, places], axis=1, largest=0)
    weights = _inverse(part, values, drawing, double)
    told = drawing.add("Gather", [drawing.row(table, double), places], axis=0)
    last = drawing.add("Unsqueeze", [weights, drawing.weight(np.array([2], np.int64))])
    weighed = drawing.add("Mul", [told, last])
    sums = drawing.add("ReduceSum", [weighed, drawing.weight(np.array([1], np.int64))], keepdims=0)
    return drawing.add("Div", [sums, _total(weights, drawing)])


def _inverse(part: Any, powered: str, drawing: Drawing, double: bool) -> str:
    """1 / distance; where training rows are met exactly, these alone count."""
    one, nothing = drawing.row(np.ones(1), double), drawing.row(np.zeros(1), double)
    distances = drawing.add("Sqrt", [powered]) if _POWERS[part.effective_metric_] == 2 else powered
    is_met = drawing.add("Equal", [distances, nothing])
    met = drawing.add("Where", [is_met, one, nothing])
    any_met = drawing.add("Greater", [_total(met, drawing), nothing])
    inverse = drawing.add("Div", [one, drawing.add("Where", [is_met, one, distances])])
    return drawing.add("Where", [any_met, met, inverse])


def _total(values: str, drawing: Drawing) -> str:
    """Each row's sum, (rows, 1)."""
    return drawing.add("ReduceSum", [values, drawing.weight(np.array([1], np.int64))], keepdims=1)
