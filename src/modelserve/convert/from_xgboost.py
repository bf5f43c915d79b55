"""XGBoost's models, read from the JSON that XGBoost itself writes.

    XGBClassifier, XGBRegressor, ...   what their `predict` answers; `probabilities`
    Booster                            `value`: what `predict` answers for a DMatrix of the rows

Inputs are compared in float32, as XGBoost does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xgboost

from modelserve.convert.boosted import Model, classifier_methods, drafts_of
from modelserve.convert.contract import Draft
from modelserve.convert.forest import Compare, Forest, Link, Members, Tree, with_sets
from modelserve.errors import ConversionError, UnsupportedSourceError
from modelserve.live import MatrixModel
from modelserve.tensors import Array

#: Objectives by their link. All others are refused.
_LINKS = {
    "reg:squarederror": Link.IDENTITY,
    "reg:squaredlogerror": Link.IDENTITY,
    "reg:absoluteerror": Link.IDENTITY,
    "reg:pseudohubererror": Link.IDENTITY,
    "reg:quantileerror": Link.IDENTITY,
    "reg:expectileerror": Link.IDENTITY,
    "reg:logistic": Link.SIGMOID,
    "reg:gamma": Link.EXP,
    "reg:tweedie": Link.EXP,
    "count:poisson": Link.EXP,
    "binary:logistic": Link.SIGMOID,
    "binary:logitraw": Link.IDENTITY,
    "binary:hinge": Link.POSITIVE,
    "multi:softprob": Link.SOFTMAX,
    "multi:softmax": Link.SOFTMAX,
    "rank:pairwise": Link.IDENTITY,
    "rank:ndcg": Link.IDENTITY,
    "rank:map": Link.IDENTITY,
    "survival:cox": Link.EXP,
    "survival:aft": Link.EXP,
}


class XGBoostConverter:
    """The scikit-learn classes of XGBoost, and its Booster."""

    roots = ("xgboost",)

    def accepts(self, source: Any) -> bool:
        return isinstance(source, xgboost.Booster | xgboost.XGBModel)

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        return drafts_of(source, example, _model(source), framework="xgboost", version=xgboost.__version__)

    def forest(self, source: Any) -> Forest:
        """A model within a scikit-learn estimator."""
        return _model(source).forest

    def taking_rows(self, source: Any) -> Any:
        """A Booster as a model whose `predict` takes rows, for workers that run it as it is."""
        return _taking_rows(source) if isinstance(source, xgboost.Booster) else source


converter = XGBoostConverter()


def _model(source: Any) -> Model:
    if isinstance(source, xgboost.Booster):
        forest = _forest(source, (0, 0), None)
        return Model(forest, {"value": _taking_rows(source).predict}, source.feature_names)
    try:
        booster = source.get_booster()
    except Exception as error:
        # XGBoost raises scikit-learn's NotFittedError.
        raise ConversionError(f"{type(source).__name__} cannot be read ({error}). Give it trained.") from error
    if not np.isnan(source.missing):
        raise UnsupportedSourceError(
            f"{type(source).__name__} takes {source.missing!r} for a missing value; only NaN can be carried over. "
            "Train it on NaN in its place."
        )
    classes = np.asarray(source.classes_) if isinstance(source, xgboost.XGBClassifier) else None
    forest = _forest(booster, source._get_iteration_range(None), classes)  # noqa: SLF001  # where its predict stops
    methods = {"value": source.predict} if classes is None else classifier_methods(source)
    return Model(forest, methods, booster.feature_names)


def _taking_rows(booster: Any) -> MatrixModel:
    # A table of numbers alone has the names that the model was trained with, in their order.
    columns = {"feature_names": booster.feature_names, "feature_types": booster.feature_types}
    return MatrixModel(booster, xgboost.DMatrix, {"enable_categorical": True}, columns)


def _forest(booster: Any, rounds: tuple[int, int], classes: Array | None) -> Forest:
    learner = json.loads(booster.save_raw("json"))["learner"]
    objective = learner["objective"]["name"]
    link = _LINKS.get(objective)
    if link is None:
        raise UnsupportedSourceError(f"XGBoost's objective {objective!r} has no portable form here yet.")
    model, drops = _trees_of(learner["gradient_booster"])
    parameters = learner["learner_model_param"]
    scores = max(1, int(parameters["num_class"])) * max(1, int(parameters["num_target"]))
    first, last = rounds
    starts = model["iteration_indptr"]
    chosen = range(starts[first], starts[last] if last else starts[-1])
    trees = [_tree(model["trees"][at], model["tree_info"][at], drops[at] if drops else 1.0) for at in chosen]
    if not trees:
        raise ConversionError("The model has no trees. Give it trained.")
    if objective == "multi:softmax" and classes is None:
        raise UnsupportedSourceError(
            "A Booster of multi:softmax answers classes as numbers. Train it with multi:softprob, or give an "
            "XGBClassifier."
        )
    return Forest(
        trees,
        scores,
        _base(parameters["base_score"], link, scores),
        link=link,
        categorical=frozenset(
            int(each) for tree in trees for each in tree.feature[tree.compare == Compare.EQUAL.value]
        ),
        codes=_codes(model.get("cats") or {}),
        classes=classes,
    )


def _trees_of(booster: Mapping[str, Any]) -> tuple[dict[str, Any], list[float]]:
    """The trees, and the share of each that counts where some were dropped in training."""
    if booster["name"] == "gbtree":
        return booster["model"], []
    if booster["name"] == "dart":
        return booster["gbtree"]["model"], booster["weight_drop"]
    raise UnsupportedSourceError(
        f"XGBoost's booster {booster['name']!r} is a linear model and has no trees. scikit-learn's linear models are "
        "carried over."
    )


def _tree(tree: Mapping[str, Any], score: int, share: float) -> Tree:
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise UnsupportedSourceError(
            "Trees whose leaves hold several values (multi_strategy='multi_output_tree') have no portable form here "
            "yet. Train with multi_strategy='one_output_per_tree'."
        )
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    values = np.array(tree["split_conditions"], np.float32)
    is_leaf = left < 0
    default_left = np.array(tree["default_left"], bool)
    plain = Tree(
        feature=np.array(tree["split_indices"]),
        threshold=values.astype(np.float64),
        compare=np.where(is_leaf, Compare.LEAF.value, Compare.BELOW.value),
        yes=left,
        no=right,
        missing_yes=default_left,
        weights=np.where(is_leaf, values.astype(np.float64) * share, 0.0),
        score=score,
    )
    sets = {}
    for at, start, size in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):
        categories = np.array(tree["categories"][start : start + size], np.float64)
        # The named categories go to the right.
        sets[at] = Members(categories, int(right[at]), int(left[at]), missing_yes=not default_left[at])
    return with_sets(plain, sets) if sets else plain


def _base(text: str, link: Link, scores: int) -> Array:
    """What the scores start from; XGBoost writes it down as an answer, not as a score."""
    found = json.loads(text)
    base = np.asarray(found if isinstance(found, list) else [found], np.float64)
    if link is Link.SIGMOID:
        base = np.log(base) - np.log1p(-base)
    elif link is Link.EXP:
        base = np.log(base)
    return np.broadcast_to(base, (scores,))


def _codes(cats: Mapping[str, Any]) -> dict[int, list[Any]]:
    """The categories that XGBoost remembers of DataFrames, by column."""
    codes = {}
    for column, entry in enumerate(cats.get("enc") or []):
        if entry.get("offsets"):
            text = bytes(value & 0xFF for value in entry["values"])
            pairs = zip(entry["offsets"], entry["offsets"][1:], strict=False)
            codes[column] = [text[start:end].decode() for start, end in pairs]
        elif entry.get("values"):
            codes[column] = entry["values"]
    return codes
