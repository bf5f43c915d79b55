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
import sklearn.feature_extraction.text
import sklearn.feature_selection
import sklearn.frozen
import sklearn.impute
import sklearn.linear_model
import sklearn.model_selection
import sklearn.neighbors
import sklearn.pipeline
import sklearn.preprocessing
import sklearn.random_projection
import sklearn.semi_supervised
from sklearn.model_selection._search import BaseSearchCV

from modelserve.convert.detect import find_converter
from modelserve.convert.drawing import Drawing, Part, gather
from modelserve.convert.from_sklearn_drawings import (
    FUNCTIONS,
    affine,
    centroids,
    chain,
    constant_class,
    constant_value,
    decide_at,
    function,
    isolating,
    linear,
    means_of_groups,
    quantiles,
)
from modelserve.convert.from_sklearn_encoders import (
    binarizer,
    bins,
    imputer,
    indicator,
    normalizer,
    one_hot,
    ordinal,
    power,
)
from modelserve.convert.from_sklearn_near import (
    nearest_class,
    nearest_value,
    within_radius_class,
    within_radius_value,
)
from modelserve.convert.from_sklearn_standins import (
    TransformerStandIn,
    forest_stand_in,
)
from modelserve.convert.from_sklearn_text import counted_first, logarithms
from modelserve.convert.from_sklearn_trees import (
    BOOSTED,
    FORESTS,
    GRADIENT_BOOSTED,
    adaboost_forest_of,
    boosted_forest_of,
    forest_of,
    gradient_boosted_forest_of,
)
from modelserve.errors import ModelServeError

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


def _weighted_votes(part: Any, _last: bool) -> Any:
    forest = adaboost_forest_of(part)
    return None if forest is None else forest_stand_in(forest, has_scores=True)


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
            [] if way.inverse_func is None else FUNCTIONS.get(way.inverse_func)
        )
    elif isinstance(way, _LINEAR_SCALERS) and way.n_features_in_ == 1:
        at_zero, at_one = way.inverse_transform(np.array([[0.0], [1.0]])).ravel().tolist()
        steps = [("Mul", at_one - at_zero), ("Add", at_zero)]
    else:
        return None
    if steps is None:
        return None
    return sklearn.pipeline.Pipeline([("regressor", part.regressor_), ("back", chain(steps, 1))])


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
        [("classifier", inner), ("threshold", decide_at(float(threshold), positive, part.classes_))]
    )


_RULES: Mapping[type, Rule] = {
    **dict.fromkeys(FORESTS, _forest),
    **dict.fromkeys(BOOSTED, _boosted),
    **dict.fromkeys(GRADIENT_BOOSTED, _gradient_boosted),
    sklearn.ensemble.IsolationForest: isolating,
    sklearn.linear_model.LogisticRegression: linear,
    sklearn.linear_model.LogisticRegressionCV: linear,
    sklearn.discriminant_analysis.LinearDiscriminantAnalysis: linear,
    sklearn.frozen.FrozenEstimator: _inner("estimator"),
    sklearn.semi_supervised.SelfTrainingClassifier: _inner("estimator_"),
    sklearn.ensemble.VotingClassifier: _set(flatten_transform=False),
    sklearn.preprocessing.KBinsDiscretizer: bins,
    sklearn.preprocessing.Binarizer: binarizer,
    sklearn.preprocessing.Normalizer: normalizer,
    sklearn.feature_extraction.text.TfidfVectorizer: counted_first,
    sklearn.feature_extraction.text.TfidfTransformer: logarithms,
    sklearn.ensemble.AdaBoostClassifier: _weighted_votes,
    sklearn.ensemble.RandomTreesEmbedding: _embedding,
    sklearn.neighbors.NearestCentroid: centroids,
    sklearn.neighbors.KNeighborsClassifier: nearest_class,
    sklearn.neighbors.KNeighborsRegressor: nearest_value,
    sklearn.neighbors.RadiusNeighborsClassifier: within_radius_class,
    sklearn.neighbors.RadiusNeighborsRegressor: within_radius_value,
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
        affine,
    ),
    sklearn.cluster.FeatureAgglomeration: means_of_groups,
    sklearn.dummy.DummyRegressor: constant_value,
    sklearn.dummy.DummyClassifier: constant_class,
    sklearn.preprocessing.FunctionTransformer: function,
    sklearn.impute.SimpleImputer: imputer,
    sklearn.impute.MissingIndicator: indicator,
    sklearn.preprocessing.OneHotEncoder: one_hot,
    sklearn.preprocessing.OrdinalEncoder: ordinal,
    sklearn.preprocessing.PowerTransformer: power,
    sklearn.preprocessing.QuantileTransformer: quantiles,
    sklearn.compose.TransformedTargetRegressor: _retransformed,
    sklearn.model_selection.FixedThresholdClassifier: _threshold,
    sklearn.model_selection.TunedThresholdClassifierCV: _threshold,
}
