"""scikit-learn's trees and forests, as forests of ours.

skl2onnx does not say where missing values go in forests, never returns from an infinite threshold, and knows no
categories in HistGradientBoosting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sklearn.dummy
import sklearn.ensemble
import sklearn.tree
from sklearn.ensemble._iforest import _average_path_length

from modelserve.convert.forest import Compare, Forest, Link, Members, Tree, with_sets
from modelserve.tensors import Array

FORESTS = (
    sklearn.tree.DecisionTreeClassifier,
    sklearn.tree.DecisionTreeRegressor,
    sklearn.tree.ExtraTreeClassifier,
    sklearn.tree.ExtraTreeRegressor,
    sklearn.ensemble.RandomForestClassifier,
    sklearn.ensemble.RandomForestRegressor,
    sklearn.ensemble.ExtraTreesClassifier,
    sklearn.ensemble.ExtraTreesRegressor,
)
BOOSTED = (sklearn.ensemble.HistGradientBoostingClassifier, sklearn.ensemble.HistGradientBoostingRegressor)
GRADIENT_BOOSTED = (sklearn.ensemble.GradientBoostingClassifier, sklearn.ensemble.GradientBoostingRegressor)

_LINKS = {
    "HalfBinomialLoss": Link.SIGMOID,
    "HalfMultinomialLoss": Link.SOFTMAX,
    "HalfSquaredError": Link.IDENTITY,
    "AbsoluteError": Link.IDENTITY,
    "PinballLoss": Link.IDENTITY,
    "HalfPoissonLoss": Link.EXP,
    "HalfGammaLoss": Link.EXP,
}


def forest_of(estimator: Any) -> Forest | None:
    """A trained tree or forest; None for a classifier of several outputs, which has several sets of classes."""
    classes = getattr(estimator, "classes_", None)
    if estimator.n_outputs_ > 1 and classes is not None:
        return None
    parts = getattr(estimator, "estimators_", None)
    trees = [
        _tree(part.tree_, is_classifier=classes is not None) for part in (parts if parts is not None else [estimator])
    ]
    scores = len(classes) if classes is not None else int(estimator.n_outputs_)
    return Forest(trees, scores, np.zeros(scores), count=float(len(trees)), classes=classes)


def boosted_forest_of(estimator: Any) -> Forest | None:
    """A trained HistGradientBoosting; None where its loss is not known here."""
    link = _LINKS.get(type(estimator._loss).__name__)  # noqa: SLF001  # there is no public way to the trees
    if link is None:
        return None
    categories = _Categories.of(estimator)
    trees = [
        _boosted_tree(predictor, score, categories)
        for group in estimator._predictors  # noqa: SLF001  # as above
        for score, predictor in enumerate(group)
    ]
    scores = int(estimator.n_trees_per_iteration_)
    base = np.asarray(estimator._baseline_prediction, np.float64).reshape(-1)  # noqa: SLF001  # as above
    return Forest(
        trees,
        scores,
        np.broadcast_to(base, (scores,)),
        link=link,
        rounds_inputs=False,
        codes=categories.codes,
        classes=getattr(estimator, "classes_", None),
    )


def gradient_boosted_forest_of(estimator: Any) -> Forest | None:
    """A trained GradientBoosting; None where it starts from the answers of an estimator of the user's."""
    init = estimator.init_
    if init != "zero" and not isinstance(init, sklearn.dummy.DummyClassifier | sklearn.dummy.DummyRegressor):
        return None
    groups = estimator.estimators_
    scores = groups.shape[1]
    base = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32))  # noqa: SLF001  # as above
    trees = []
    for group in groups:
        for score, part in enumerate(group):
            tree = _tree(part.tree_, is_classifier=False)
            weights = tree.weights[:, 0] * estimator.learning_rate
            trees.append(replace(tree, weights=weights, score=score))
    classes = getattr(estimator, "classes_", None)
    link = Link.IDENTITY if classes is None else Link.SIGMOID if scores == 1 else Link.SOFTMAX
    slope = 2.0 if estimator.loss == "exponential" else 1.0
    return Forest(trees, scores, np.asarray(base, np.float64).reshape(-1), link=link, slope=slope, classes=classes)


def adaboost_forest_of(estimator: Any) -> Forest | None:
    """A trained AdaBoostClassifier of trees: each leaf votes for one class, and against all others. None of others."""
    classes = estimator.classes_
    count = len(classes)
    parts = estimator.estimators_
    if count < 2 or not all(type(part) is sklearn.tree.DecisionTreeClassifier for part in parts):
        return None
    if not all(np.array_equal(part.classes_, classes) for part in parts):
        return None
    shares = estimator.estimator_weights_[: len(parts)] / estimator.estimator_weights_.sum()
    trees = []
    for part, share in zip(parts, shares, strict=True):
        tree = _tree(part.tree_, is_classifier=True)
        votes = np.where(np.eye(count)[tree.weights.argmax(axis=1)] == 1, share, -share / (count - 1))
        trees.append(replace(tree, weights=2 * votes[:, 1] if count == 2 else votes))
    scores = 1 if count == 2 else count
    link, slope = (Link.SIGMOID, 1.0) if count == 2 else (Link.SOFTMAX, 1.0 / (count - 1))
    return Forest(trees, scores, np.zeros(scores), link=link, slope=slope, classes=classes)


def isolation_forest_of(estimator: Any) -> Forest:
    """A trained IsolationForest: one sum a row, the depth at which the trees isolate it, in units of the usual one."""
    trees = []
    parts = zip(
        estimator.estimators_,
        estimator.estimators_features_,
        estimator._decision_path_lengths,  # noqa: SLF001  # there is no public way to the depths
        estimator._average_path_length_per_tree,  # noqa: SLF001  # as above
        strict=True,
    )
    for part, columns, depths, beyond in parts:
        tree = _tree(part.tree_, is_classifier=False)
        feature = np.asarray(columns)[np.maximum(tree.feature, 0)]
        trees.append(replace(tree, feature=feature, weights=np.asarray(depths) + np.asarray(beyond) - 1.0))
    usual = float(_average_path_length([estimator._max_samples])[0])  # noqa: SLF001  # as above
    return Forest(trees, 1, np.zeros(1), count=max(len(trees) * usual, 1e-12))


@dataclass(frozen=True, slots=True)
class _Categories:
    """HistGradientBoosting numbers categories, and puts their columns before all others.

    Attributes:
        columns: The column that each feature of the trees comes from.
        values: What stands for each category in that column, by feature of the trees.
        codes: The texts of the categories, by column, where the column is text.
    """

    columns: Array
    values: Sequence[Array]
    codes: Mapping[int, Sequence[Any]]

    @classmethod
    def of(cls, estimator: Any) -> _Categories:
        is_categorical = estimator.is_categorical_
        if is_categorical is None:
            return cls(np.arange(estimator.n_features_in_), (), {})
        columns = np.concatenate([np.flatnonzero(is_categorical), np.flatnonzero(~is_categorical)])
        encoder = estimator._preprocessor.named_transformers_["encoder"]  # noqa: SLF001  # no public way
        values, codes = [], {}
        for column, known in zip(columns, encoder.categories_, strict=False):
            known = [value for value in known if value == value and value is not None]
            if any(isinstance(value, str) for value in known):
                codes[int(column)] = known
                known = list(range(len(known)))
            values.append(np.asarray(known, np.float64))
        return cls(columns, values, codes)


def _tree(tree: Any, *, is_classifier: bool) -> Tree:
    values = tree.value[:, 0, :] if is_classifier else tree.value[:, :, 0]
    if is_classifier:
        total = values.sum(axis=1, keepdims=True)
        values = values / np.where(total == 0, 1, total)
    is_leaf = tree.children_left < 0
    missing = getattr(tree, "missing_go_to_left", np.zeros(len(is_leaf), bool))
    return Tree(
        feature=tree.feature,
        threshold=tree.threshold,
        compare=np.where(is_leaf, Compare.LEAF.value, Compare.AT_MOST.value),
        yes=tree.children_left,
        no=tree.children_right,
        missing_yes=np.asarray(missing),
        weights=values,
    )


def _boosted_tree(predictor: Any, score: int, categories: _Categories) -> Tree:
    nodes = predictor.nodes
    feature = categories.columns[np.where(nodes["is_leaf"], 0, nodes["feature_idx"])]
    compare = np.where(nodes["is_leaf"], Compare.LEAF.value, Compare.AT_MOST.value)
    tree = Tree(
        feature=feature,
        threshold=nodes["num_threshold"],
        compare=compare,
        yes=nodes["left"].astype(np.int64),
        no=nodes["right"].astype(np.int64),
        missing_yes=nodes["missing_go_to_left"].astype(bool),
        weights=nodes["value"],
        score=score,
    )
    sets = {}
    for at in np.flatnonzero(nodes["is_categorical"] & ~nodes["is_leaf"].astype(bool)):
        node = nodes[at]
        bits = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
        known = categories.values[node["feature_idx"]]
        is_left = np.array([bits[index // 32] >> (index % 32) & 1 for index in range(len(known))], bool)
        # What is unknown goes where what is missing goes: so the others are the ones to name.
        if node["missing_go_to_left"]:
            sets[int(at)] = Members(known[~is_left], yes=int(node["right"]), no=int(node["left"]))
        else:
            sets[int(at)] = Members(known[is_left], yes=int(node["left"]), no=int(node["right"]))
    return with_sets(tree, sets)
