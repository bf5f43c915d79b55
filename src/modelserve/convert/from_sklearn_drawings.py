"""Estimators of scikit-learn that are drawn by us, each by the formula that it computes.

Every function here is a rule (see from_sklearn_rules), or makes a part of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto

from modelserve.convert.drawing import Drawing, Part, gather
from modelserve.convert.forest import Link, answer, as_labels, draw, label
from modelserve.convert.from_sklearn_standins import (
    ClassifierStandIn,
    OutlierStandIn,
    RegressorStandIn,
    ScoringStandIn,
    TransformerStandIn,
)
from modelserve.convert.from_sklearn_trees import isolation_forest_of
from modelserve.convert.quiet import quiet
from modelserve.errors import UnsupportedSourceError
from modelserve.tensors import Array


def linear(part: Any, _last: bool) -> Any:
    """A linear classifier with probabilities, so that its scores are there as well."""
    weights, count = part.coef_.T, part.coef_.shape[0]

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        dtype = np.float64 if double else np.float32
        product = drawing.add("MatMul", [gather(parts, drawing, double=double), drawing.weight(weights.astype(dtype))])
        scores = drawing.add("Add", [product, drawing.weight(np.asarray(part.intercept_).reshape(-1).astype(dtype))])
        return answer(scores, count, Link.SIGMOID if count == 1 else Link.SOFTMAX, drawing, classes=part.classes_)

    return ScoringStandIn(paint, part.classes_)


def centroids(part: Any, _last: bool) -> Any:
    """The nearest of the classes' centres; shares from distances in units of each feature's spread."""
    if part.metric != "euclidean":
        return None
    spread = np.where(part.within_class_std_dev_ != 0, part.within_class_std_dev_, 1.0)
    is_uniform = bool(np.isclose(part.class_prior_, 1 / len(part.classes_)).all())
    priors = 2.0 * np.log(part.class_prior_)

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        dtype = np.float64 if double else np.float32
        x = gather(parts, drawing, double=double)
        scaled = drawing.add("Div", [x, drawing.weight(spread.astype(dtype))])
        scores = _minus_squares(scaled, part.centroids_ / spread, priors, drawing, dtype)
        nearest = _minus_squares(x, part.centroids_, np.zeros_like(priors), drawing, dtype) if is_uniform else scores
        return {
            "label": label(nearest, len(part.classes_), part.classes_, drawing),
            "probabilities": drawing.add("Softmax", [scores], axis=1),
        }

    return ClassifierStandIn(paint, part.classes_)


def _minus_squares(x: str, centres: Array, plus: Array, drawing: Drawing, dtype: Any) -> str:
    """What is added for each centre, minus the square of the distance to it; (rows, centres)."""
    row = drawing.add("Unsqueeze", [x, drawing.weight(np.array([1], np.int64))])
    apart = drawing.add("Sub", [row, drawing.weight(centres[np.newaxis].astype(dtype))])
    squares = drawing.add("Mul", [apart, apart])
    sums = drawing.add("ReduceSum", [squares, drawing.weight(np.array([2], np.int64))], keepdims=0)
    return drawing.add("Sub", [drawing.weight(plus.astype(dtype)), sums])


def affine(part: Any, _last: bool) -> Any:
    """A transformer that multiplies by a matrix and adds a row; both are read off what it makes of simple rows."""
    features = part.n_features_in_
    with quiet():
        offset = np.asarray(part.transform(np.zeros((1, features))))
        matrix = np.asarray(part.transform(np.eye(features))) - offset

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        dtype = np.float64 if double else np.float32
        product = drawing.add("MatMul", [gather(parts, drawing, double=double), drawing.weight(matrix.astype(dtype))])
        return {"value": drawing.add("Add", [product, drawing.weight(offset.astype(dtype))])}

    return TransformerStandIn(paint, matrix.shape[1])


def means_of_groups(part: Any, last: bool) -> Any:
    """A FeatureAgglomeration by means."""
    return affine(part, last) if part.pooling_func is np.mean else None


def isolating(part: Any, _last: bool) -> Any:
    """An IsolationForest."""
    forest = isolation_forest_of(part)

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        depth = draw(forest, parts, drawing, double=double)["value"]
        table = drawing.add("Reshape", [depth, drawing.weight(np.array([-1, 1], np.int64))])
        # 2 to the power of minus the depth; 1 is what is isolated at once.
        power = drawing.add("Exp", [drawing.add("Mul", [table, drawing.numbers(-np.log(2.0))])])
        scores = drawing.add("Sub", [drawing.add("Neg", [power]), drawing.numbers(part.offset_)])
        below = drawing.add("Less", [scores, drawing.numbers(0.0)])
        at = drawing.flat(drawing.add("Cast", [below], to=TensorProto.INT64))
        return {"label": drawing.add("Gather", [drawing.weight(np.array([1, -1])), at], axis=0), "scores": scores}

    stand_in = OutlierStandIn(paint, np.array([1, -1]))
    stand_in.jumps, stand_in.rounds_inputs = True, True
    return stand_in


def constant_value(part: Any, _last: bool) -> Any:
    """A DummyRegressor."""
    values = np.asarray(part.constant_, np.float64).reshape(1, -1)

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        return {"value": _constant(parts, values, drawing, double)}

    return RegressorStandIn(paint, values.shape[1])


def constant_class(part: Any, _last: bool) -> Any:
    """A DummyClassifier that always answers the same."""
    if part.strategy not in {"prior", "most_frequent", "constant"} or part.n_outputs_ != 1:
        return None  # the others answer at random
    classes = part.classes_
    with quiet():
        shares = np.asarray(part.predict_proba(np.zeros((1, 1))), np.float64)
        chosen = np.flatnonzero(classes == part.predict(np.zeros((1, 1)))[0])

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        zeros = _constant(parts, np.zeros((1, 1)), drawing, double)
        at = drawing.add("Reshape", [zeros, drawing.weight(np.array([-1], np.int64))])
        at = drawing.add(
            "Add", [drawing.add("Cast", [at], to=TensorProto.INT64), drawing.weight(chosen.astype(np.int64))]
        )
        return {
            "label": drawing.add("Gather", [drawing.weight(as_labels(classes)), at], axis=0),
            "probabilities": _constant(parts, shares, drawing, double),
        }

    return ClassifierStandIn(paint, classes)


def _constant(parts: Sequence[Part], row: Array, drawing: Drawing, double: bool) -> str:
    """The same row for each row of the input."""
    rows = drawing.add("Shape", [parts[0].name], start=0, end=1)
    shape = drawing.add("Concat", [rows, drawing.weight(np.array([row.shape[1]], np.int64))], axis=0)
    return drawing.add("Expand", [drawing.weight(row.astype(np.float64 if double else np.float32)), shape])


# Functions of one number, as operators of ONNX one after another.
FUNCTIONS: Mapping[Any, Sequence[tuple[str, float | None]]] = {
    np.log1p: [("Add", 1.0), ("Log", None)],
    np.expm1: [("Exp", None), ("Sub", 1.0)],
    np.log: [("Log", None)],
    np.log2: [("Log", None), ("Div", float(np.log(2.0)))],
    np.log10: [("Log", None), ("Div", float(np.log(10.0)))],
    np.exp: [("Exp", None)],
    np.sqrt: [("Sqrt", None)],
    np.square: [("Pow", 2.0)],
    np.abs: [("Abs", None)],
    np.sign: [("Sign", None)],
    np.negative: [("Neg", None)],
    np.reciprocal: [("Reciprocal", None)],
    np.sin: [("Sin", None)],
    np.cos: [("Cos", None)],
    np.tanh: [("Tanh", None)],
}


def function(part: Any, _last: bool) -> Any:
    """A FunctionTransformer of one of numpy's own functions."""
    steps = FUNCTIONS.get(part.func)
    if steps is None or part.kw_args or not hasattr(part, "n_features_in_"):
        return None
    return chain(steps, part.n_features_in_)


def chain(steps: Sequence[tuple[str, float | None]], columns: int) -> Any:
    """A transformer that applies operators of one number, one after another."""

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        value = gather(parts, drawing, double=double)
        dtype = np.float64 if double else np.float32
        for kind, operand in steps:
            operands = [] if operand is None else [drawing.weight(np.array([operand], dtype))]
            value = drawing.add(kind, [value, *operands])
        return {"value": value}

    return TransformerStandIn(paint, columns)


def decide_at(threshold: float, positive: int, classes: Array) -> ClassifierStandIn:
    """Takes a label and probabilities, and decides anew."""
    names = as_labels(classes)
    order = names if positive == 1 else names[::-1]

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        dtype = np.float64 if double else np.float32
        shares = parts[-1].name
        share = drawing.add("Gather", [shares, drawing.weight(np.array(positive))], axis=1)
        # Never below: a float32 share that reads as the threshold has reached it.
        below = drawing.add("Less", [share, drawing.weight(np.array([threshold], dtype))])
        above = drawing.add("Cast", [drawing.add("Not", [below])], to=TensorProto.INT64)
        return {"label": drawing.add("Gather", [drawing.weight(order), above], axis=0), "probabilities": shares}

    return ClassifierStandIn(paint, classes)


def quantiles(part: Any, _last: bool) -> Any:
    """A QuantileTransformer to a uniform distribution: between the two quantiles around a number, from either side."""
    if part.output_distribution != "uniform":
        raise UnsupportedSourceError(
            "QuantileTransformer(output_distribution='normal') has no portable form here yet. "
            "Train with 'uniform', or put a PowerTransformer in its place."
        )
    draw_it = _Interpolation(part.quantiles_.T, part.references_).paint
    # It jumps at the outermost quantiles, where several rows are equal to them.
    return TransformerStandIn(draw_it, part.n_features_in_, jumps=True)


class _Interpolation(NamedTuple):
    """Where a number lies among its column's quantiles, (columns, points); they may repeat themselves."""

    points: Array
    heights: Array

    def paint(self, parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        dtype = np.float64 if double else np.float32
        x = gather(parts, drawing, double=double)
        points = drawing.weight(self.points[np.newaxis].astype(dtype))
        wide = drawing.add("Unsqueeze", [x, drawing.weight(np.array([2], np.int64))])
        at_most = self._count(drawing.add("LessOrEqual", [points, wide]), drawing)
        below = self._count(drawing.add("Less", [points, wide]), drawing)
        one = drawing.weight(np.array(1, np.int64))
        above = drawing.add("Sub", [at_most, one])
        from_left = self._between(x, above, at_most, drawing, dtype)
        from_right = self._between(x, drawing.add("Sub", [below, one]), below, drawing, dtype)
        middle = drawing.add("Mul", [drawing.add("Add", [from_left, from_right]), drawing.weight(np.array(0.5, dtype))])
        for edge, height in ((-1, 1.0), (0, 0.0)):
            is_edge = drawing.add("Equal", [x, drawing.weight(self.points[:, edge].astype(dtype))])
            middle = drawing.add("Where", [is_edge, drawing.weight(np.array(height, dtype)), middle])
        return {"value": drawing.add("Where", [drawing.add("IsNaN", [x]), x, middle])}

    def _count(self, flags: str, drawing: Drawing) -> str:
        counted = drawing.add("Cast", [flags], to=TensorProto.INT32)
        summed = drawing.add("ReduceSum", [counted, drawing.weight(np.array([2], np.int64))], keepdims=0)
        return drawing.add("Cast", [summed], to=TensorProto.INT64)

    def _between(self, x: str, left: str, right: str, drawing: Drawing, dtype: Any) -> str:
        """The height at x on the line from point `left` to point `right`; level outside of them all."""
        columns, count = self.points.shape
        low, high = drawing.weight(np.array(0, np.int64)), drawing.weight(np.array(count - 1, np.int64))
        ends = [drawing.add("Clip", [end, low, high]) for end in (left, right)]
        offsets = drawing.weight(np.arange(columns, dtype=np.int64)[np.newaxis] * count)
        flat = drawing.weight(self.points.reshape(-1).astype(dtype))
        near, far = (drawing.add("Gather", [flat, drawing.add("Add", [end, offsets])]) for end in ends)
        heights = drawing.weight(self.heights.astype(dtype))
        base, top = (drawing.add("Gather", [heights, end]) for end in ends)
        width = drawing.add("Sub", [far, near])
        nothing, one = drawing.weight(np.array(0, dtype)), drawing.weight(np.array(1, dtype))
        has_width = drawing.add("Greater", [width, nothing])
        divisor = drawing.add("Where", [has_width, width, one])
        share = drawing.add("Div", [drawing.add("Sub", [x, near]), divisor])
        share = drawing.add("Where", [has_width, share, nothing])
        share = drawing.add("Clip", [share, nothing, one])
        return drawing.add("Add", [base, drawing.add("Mul", [share, drawing.add("Sub", [top, base])])])
