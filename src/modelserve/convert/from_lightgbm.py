"""LightGBM's models, read from what LightGBM itself dumps.

    LGBMClassifier, LGBMRegressor, ...   what their `predict` answers; `probabilities`
    Booster                              `value`: what `predict` answers

Inputs are compared in float64, as LightGBM does, unless the example itself is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np

from modelserve.convert.boosted import Model, classifier_methods, drafts_of
from modelserve.convert.contract import Draft
from modelserve.convert.forest import Compare, Forest, Link, Members, Tree, with_sets
from modelserve.errors import ConversionError, UnsupportedSourceError
from modelserve.tensors import Array

#: Objectives by their link. All others are refused.
_LINKS = {
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), Link.IDENTITY),
    **dict.fromkeys(("lambdarank", "rank_xendcg"), Link.IDENTITY),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), Link.EXP),
    **dict.fromkeys(("binary", "cross_entropy", "multiclassova"), Link.SIGMOID),
    "cross_entropy_lambda": Link.SOFTPLUS,
    "multiclass": Link.SOFTMAX,
}


class LightGBMConverter:
    """The scikit-learn classes of LightGBM, and its Booster."""

    roots = ("lightgbm",)

    def accepts(self, source: Any) -> bool:
        return isinstance(source, lightgbm.Booster | lightgbm.LGBMModel)

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        return drafts_of(source, example, _model(source), framework="lightgbm", version=lightgbm.__version__)

    def forest(self, source: Any) -> Forest:
        """A model within a scikit-learn estimator."""
        return _model(source).forest


converter = LightGBMConverter()


def _model(source: Any) -> Model:
    if isinstance(source, lightgbm.Booster):
        return Model(_forest(source, None), {"value": source.predict}, source.feature_name())
    try:
        booster = source.booster_
    except Exception as error:
        # LightGBM raises an error of its own that is scikit-learn's NotFittedError, too.
        raise ConversionError(f"{type(source).__name__} cannot be read ({error}). Give it trained.") from error
    classes = np.asarray(source.classes_) if isinstance(source, lightgbm.LGBMClassifier) else None
    methods = {"value": source.predict} if classes is None else classifier_methods(source)
    return Model(_forest(booster, classes), methods, booster.feature_name())


def _forest(booster: Any, classes: Array | None) -> Forest:
    dump = booster.dump_model()  # stops at the best iteration, as predict does
    link, slope = _link(dump.get("objective"))
    if dump["average_output"]:
        slope /= len(dump["tree_info"]) / int(dump["num_tree_per_iteration"])  # its raw scores are not averaged
    scores = int(dump["num_tree_per_iteration"])
    trees = [_tree(entry["tree_structure"], at % scores) for at, entry in enumerate(dump["tree_info"])]
    if not trees:
        raise ConversionError("The model has no trees. Give it trained.")
    return Forest(
        trees,
        scores,
        np.zeros(scores),
        slope=slope,
        link=link,
        rounds_inputs=False,
        categorical=frozenset(
            int(each) for tree in trees for each in tree.feature[tree.compare == Compare.EQUAL.value]
        ),
        codes=_codes(dump),
        classes=classes,
    )


def _link(objective: str | None) -> tuple[Link, float]:
    """The link, and the slope before it, of an objective such as `binary sigmoid:1`."""
    name, *settings = (objective or "none").split()
    link = _LINKS.get(name)
    if link is None:
        raise UnsupportedSourceError(f"LightGBM's objective {name!r} has no portable form here yet.")
    if "sqrt" in settings:
        link = Link.SQUARE
    slopes = [float(entry.partition(":")[2]) for entry in settings if entry.startswith("sigmoid:")]
    return link, slopes[0] if slopes else 1.0


def _codes(dump: Mapping[str, Any]) -> dict[int, list[Any]]:
    """The categories of the DataFrame that it was trained with, by column."""
    columns = [at for at, name in enumerate(dump["feature_names"]) if dump["feature_infos"].get(name, {}).get("values")]
    known = dump.get("pandas_categorical") or []
    # A column of one category is no feature to LightGBM, so that the two lists can differ.
    return dict(zip(columns, known, strict=False)) if len(columns) == len(known) else {}


def _tree(root: Mapping[str, Any], score: int) -> Tree:
    nodes: list[dict[str, Any]] = []
    sets: dict[int, Members] = {}
    waiting = [(root, -1, "")]
    while waiting:
        node, parent, side = waiting.pop()
        at = len(nodes)
        if parent >= 0:
            nodes[parent][side] = at
        nodes.append(_node(node))
        if "left_child" in node:
            waiting += [(node["right_child"], at, "no"), (node["left_child"], at, "yes")]
    for at, entry in enumerate(nodes):
        categories = entry.pop("categories")
        if categories is not None:
            sets[at] = Members(categories, entry["yes"], entry["no"])
    plain = Tree(**{name: np.array([entry[name] for entry in nodes]) for name in nodes[0]}, score=score)
    return with_sets(plain, sets) if sets else plain


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    entry = {
        "feature": 0,
        "threshold": 0.0,
        "compare": Compare.LEAF.value,
        "yes": 0,
        "no": 0,
        "missing_yes": False,
        "weights": float(node.get("leaf_value", 0.0)),
        "categories": None,
    }
    if "leaf_coeff" in node:
        raise UnsupportedSourceError(
            "Trees with a linear model in each leaf (linear_tree=True) have no portable form here yet. "
            "Train with linear_tree=False."
        )
    if "left_child" not in node:
        return entry
    entry["feature"] = node["split_feature"]
    if node["decision_type"] == "==":
        categories = [float(each) for each in str(node["threshold"]).split("||")]
        return entry | {"compare": Compare.EQUAL.value, "categories": np.array(categories)}
    if node["missing_type"] == "Zero":
        raise UnsupportedSourceError(
            "A model that takes zero for a missing value (zero_as_missing=True) has no portable form here yet. "
            "Train it on NaN in place of missing values."
        )
    threshold = float(node["threshold"])
    # Without missing values in its training LightGBM takes NaN for zero.
    missing_yes = threshold >= 0.0 if node["missing_type"] == "None" else bool(node["default_left"])
    return entry | {"compare": Compare.AT_MOST.value, "threshold": threshold, "missing_yes": missing_yes}
