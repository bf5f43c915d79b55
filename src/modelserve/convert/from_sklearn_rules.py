"""The rules by which one estimator is written as another: what skl2onnx lacks, or errs on.

A rule gives an estimator that answers the same, or None where it does not hold.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import sklearn.base
import sklearn.cluster
import sklearn.compose
import sklearn.decomposition
import sklearn.discriminant_analysis
import sklearn.dummy
import sklearn.ensemble
import sklearn.feature_selection
import sklearn.frozen
import sklearn.linear_model
import sklearn.model_selection
import sklearn.neighbors
import sklearn.pipeline
import sklearn.preprocessing
import sklearn.random_projection
import sklearn.semi_supervised
from onnx import TensorProto
from sklearn.model_selection._search import BaseSearchCV

from modelserve.convert.detect import find_converter
from modelserve.convert.forest import Drawing, Link, Part, answer, as_labels, draw, gather, label
from modelserve.convert.from_sklearn_standins import (
    ClassifierStandIn,
    OutlierStandIn,
    RegressorStandIn,
    ScoringStandIn,
    TransformerStandIn,
    forest_stand_in,
)
from modelserve.convert.from_sklearn_trees import (
    BOOSTED,
    FORESTS,
    GRADIENT_BOOSTED,
    boosted_forest_of,
    forest_of,
    gradient_boosted_forest_of,
    isolation_forest_of,
)
from modelserve.convert.quiet import quiet
from modelserve.errors import ModelServeError
from modelserve.tensors import Array

#: One estimator as another; None where the rule does not hold for it. `last` says that its `predict` is meant.
Rule: TypeAlias = Callable[[Any, bool], Any]


def rule_for(part: Any) -> Rule | None:
    """The rule for an estimator's class."""
    found = _RULES.get(type(part))
    if found is not None:
        return found
    if isinstance(part, BaseSearchCV):
        return _inner("best_estimator_")
    if isinstance(part, sklearn.feature_selection.SelectorMixin):
        return _selected
    is_ours = type(part).__module__.startswith(("sklearn.", "modelserve."))
    # CatBoost's classes are no BaseEstimator.
    return _foreign if hasattr(part, "get_params") and not is_ours else None


def _foreign(part: Any, _last: bool) -> Any:
    """A boosted model of another framework, drawn by that framework's converter."""
    try:
        forest_of_model = getattr(find_converter(part), "forest", None)
    except ModelServeError:
        return None  # skl2onnx says what it thinks of the class
    if forest_of_model is None:
        return None
    return forest_stand_in(forest_of_model(part), has_scores=hasattr(part, "decision_function"))


def _forest(part: Any, _last: bool) -> Any:
    forest = forest_of(part)
    return None if forest is None else forest_stand_in(forest)


def _boosted(part: Any, _last: bool) -> Any:
    forest = boosted_forest_of(part)
    return None if forest is None else forest_stand_in(forest, has_scores=True)


def _gradient_boosted(part: Any, _last: bool) -> Any:
    forest = gradient_boosted_forest_of(part)
    return None if forest is None else forest_stand_in(forest, has_scores=True)


def _isolating(part: Any, _last: bool) -> Any:
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
    stand_in.forest_ = forest
    return stand_in


def _selected(part: Any, last: bool) -> Any:
    """A selection of columns by what it selects; where `predict` is meant, with the estimator behind it."""
    columns = np.flatnonzero(part.get_support())

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        x = gather(parts, drawing, double=double)
        return {"value": drawing.add("Gather", [x, drawing.weight(columns)], axis=1)}

    select = TransformerStandIn(paint, len(columns))
    if last and hasattr(part, "predict"):
        return sklearn.pipeline.Pipeline([("select", select), ("estimator", part.estimator_)])
    return select


def _inner(name: str) -> Rule:
    """What the estimator was only a wrapping of."""
    return lambda part, _last: getattr(part, name)


def _set(**settings: Any) -> Rule:
    """The same with other settings, which change the form of an answer and not its values."""

    def changed(part: Any, _last: bool) -> Any:
        if all(getattr(part, name) == value for name, value in settings.items()):
            return None
        twin = copy.copy(part)
        for name, value in settings.items():
            setattr(twin, name, value)
        return twin

    return changed


def _embedding(part: Any, _last: bool) -> Any:
    twin = copy.copy(part)
    twin.sparse_output = False
    twin.one_hot_encoder_ = copy.copy(part.one_hot_encoder_)
    twin.one_hot_encoder_.sparse_output = False
    return twin if part.sparse_output else None


def _nearest(centres: str, labels: str) -> Rule:
    """What answers the label of the nearest of some points."""

    def neighbour(part: Any, _last: bool) -> Any:
        points = np.asarray(getattr(part, centres))
        names = getattr(part, labels) if labels else np.arange(len(points))
        return sklearn.neighbors.KNeighborsClassifier(1, algorithm="brute").fit(points, names)

    return neighbour


def _centroids(part: Any, _last: bool) -> Any:
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


def _linear(part: Any, _last: bool) -> Any:
    """A linear classifier with probabilities, so that its scores are there as well."""
    weights, count = part.coef_.T, part.coef_.shape[0]

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        dtype = np.float64 if double else np.float32
        product = drawing.add("MatMul", [gather(parts, drawing, double=double), drawing.weight(weights.astype(dtype))])
        scores = drawing.add("Add", [product, drawing.weight(np.asarray(part.intercept_).reshape(-1).astype(dtype))])
        return answer(scores, count, Link.SIGMOID if count == 1 else Link.SOFTMAX, drawing, classes=part.classes_)

    return ScoringStandIn(paint, part.classes_)


def _affine(part: Any, _last: bool) -> Any:
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


def _means_of_groups(part: Any, last: bool) -> Any:
    return _affine(part, last) if part.pooling_func is np.mean else None


def _constant_value(part: Any, _last: bool) -> Any:
    values = np.asarray(part.constant_, np.float64).reshape(1, -1)

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        return {"value": _constant(parts, values, drawing, double)}

    return RegressorStandIn(paint, values.shape[1])


def _constant_class(part: Any, _last: bool) -> Any:
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
_FUNCTIONS: Mapping[Any, Sequence[tuple[str, float | None]]] = {
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


def _function(part: Any, _last: bool) -> Any:
    """A FunctionTransformer of one of numpy's own functions."""
    steps = _FUNCTIONS.get(part.func)
    if steps is None or part.kw_args or not hasattr(part, "n_features_in_"):
        return None
    return _chain(steps, part.n_features_in_)


def _chain(steps: Sequence[tuple[str, float | None]], columns: int) -> Any:
    """A transformer that applies operators of one number, one after another."""

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        value = gather(parts, drawing, double=double)
        dtype = np.float64 if double else np.float32
        for kind, operand in steps:
            operands = [] if operand is None else [drawing.weight(np.array([operand], dtype))]
            value = drawing.add(kind, [value, *operands])
        return {"value": value}

    return TransformerStandIn(paint, columns)


_LINEAR_SCALERS = (
    sklearn.preprocessing.StandardScaler,
    sklearn.preprocessing.MaxAbsScaler,
    sklearn.preprocessing.RobustScaler,
    sklearn.preprocessing.MinMaxScaler,
)


def _retransformed(part: Any, _last: bool) -> Any:
    """A regressor, and the way back from the target it was trained on."""
    way = part.transformer_
    if isinstance(way, sklearn.preprocessing.FunctionTransformer):
        steps: Sequence[tuple[str, float | None]] | None = (
            [] if way.inverse_func is None else _FUNCTIONS.get(way.inverse_func)
        )
    elif isinstance(way, _LINEAR_SCALERS) and way.n_features_in_ == 1:
        at_zero, at_one = way.inverse_transform(np.array([[0.0], [1.0]])).ravel().tolist()
        steps = [("Mul", at_one - at_zero), ("Add", at_zero)]
    else:
        return None
    if steps is None:
        return None
    return sklearn.pipeline.Pipeline([("regressor", part.regressor_), ("back", _chain(steps, 1))])


def _threshold(part: Any, _last: bool) -> Any:
    """A classifier of two classes whose share of one decides at a threshold of its own."""
    inner = getattr(part, "estimator_", part.estimator)
    threshold = getattr(part, "best_threshold_", None)
    if threshold is None:
        threshold = 0.5 if part.threshold == "auto" else part.threshold
    if part.response_method not in {"auto", "predict_proba"} or not hasattr(inner, "predict_proba"):
        return None
    wanted = getattr(part, "pos_label", None)
    positive = 1 if wanted is None else int(np.flatnonzero(part.classes_ == wanted)[0])
    return sklearn.pipeline.Pipeline(
        [("classifier", inner), ("threshold", _at(float(threshold), positive, part.classes_))]
    )


def _at(threshold: float, positive: int, classes: Array) -> ClassifierStandIn:
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


_RULES: Mapping[type, Rule] = {
    **dict.fromkeys(FORESTS, _forest),
    **dict.fromkeys(BOOSTED, _boosted),
    **dict.fromkeys(GRADIENT_BOOSTED, _gradient_boosted),
    sklearn.ensemble.IsolationForest: _isolating,
    sklearn.linear_model.LogisticRegression: _linear,
    sklearn.linear_model.LogisticRegressionCV: _linear,
    sklearn.discriminant_analysis.LinearDiscriminantAnalysis: _linear,
    sklearn.frozen.FrozenEstimator: _inner("estimator"),
    sklearn.semi_supervised.SelfTrainingClassifier: _inner("estimator_"),
    sklearn.ensemble.VotingClassifier: _set(flatten_transform=False),
    sklearn.preprocessing.KBinsDiscretizer: _set(encode="onehot-dense"),
    sklearn.ensemble.RandomTreesEmbedding: _embedding,
    sklearn.neighbors.NearestCentroid: _centroids,
    sklearn.cluster.MeanShift: _nearest("cluster_centers_", ""),
    sklearn.cluster.AffinityPropagation: _nearest("cluster_centers_", ""),
    sklearn.cluster.Birch: _nearest("subcluster_centers_", "subcluster_labels_"),
    **dict.fromkeys(
        (
            sklearn.decomposition.FastICA,
            sklearn.decomposition.FactorAnalysis,
            sklearn.random_projection.SparseRandomProjection,
            sklearn.random_projection.GaussianRandomProjection,
        ),
        _affine,
    ),
    sklearn.cluster.FeatureAgglomeration: _means_of_groups,
    sklearn.dummy.DummyRegressor: _constant_value,
    sklearn.dummy.DummyClassifier: _constant_class,
    sklearn.preprocessing.FunctionTransformer: _function,
    sklearn.compose.TransformedTargetRegressor: _retransformed,
    sklearn.model_selection.FixedThresholdClassifier: _threshold,
    sklearn.model_selection.TunedThresholdClassifierCV: _threshold,
}
