"""CatBoost's models, read from the JSON that CatBoost itself writes.

    CatBoostClassifier, CatBoostRegressor, ...   what their `predict` answers; `probabilities`
    CatBoost                                     `value`: what `predict` answers, raw scores by default

Inputs are compared in float32, as CatBoost does. Categories, text and embeddings are refused: CatBoost turns them into
numbers by tables of the training data.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import catboost
import numpy as np

from modelserve.convert.boosted import Model, classifier_methods, drafts_of
from modelserve.convert.contract import Draft
from modelserve.convert.forest import Compare, Forest, Link, Tree
from modelserve.errors import ConversionError, UnsupportedSourceError
from modelserve.tensors import Array

#: Losses by the link of what `predict` answers; scores as they are for all others.
_EXPONENTIAL = {"Poisson", "Tweedie"}
_CLASSIFIERS = {"Logloss": Link.SIGMOID, "CrossEntropy": Link.SIGMOID, "MultiClass": Link.SOFTMAX}
_CLASSIFIERS["MultiClassOneVsAll"] = Link.SIGMOID


class CatBoostConverter:
    """All classes of CatBoost."""

    roots = ("catboost",)

    def accepts(self, source: Any) -> bool:
        return isinstance(source, catboost.CatBoost)

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        return drafts_of(source, example, _model(source), framework="catboost", version=catboost.__version__)

    def forest(self, source: Any) -> Forest:
        """A model within a scikit-learn estimator."""
        return _model(source).forest


converter = CatBoostConverter()


def _model(source: Any) -> Model:
    if not source.is_fitted():
        raise ConversionError(f"{type(source).__name__} cannot be read: it is not trained. Give it trained.")
    dump = _dump(source)
    classes = np.asarray(source.classes_) if isinstance(source, catboost.CatBoostClassifier) else None
    forest = _forest(dump, classes)
    methods = {"value": source.predict} if classes is None else classifier_methods(source)
    return Model(forest, methods, source.feature_names_)


def _dump(source: Any) -> dict[str, Any]:
    kinds = {"categorical": source.get_cat_feature_indices(), "text": source.get_text_feature_indices()}
    kinds["embedding"] = source.get_embedding_feature_indices()
    for kind, found in kinds.items():
        if len(found):
            raise UnsupportedSourceError(
                f"{type(source).__name__} has {kind} features ({list(found)}). CatBoost turns them into numbers by "
                "tables of its training data, and keeps hashes in place of the values, so that "
                "they have no portable form here. Encode them in a step before it, such as scikit-learn's "
                "OrdinalEncoder, and train on that; or serve it on a local target, which runs it as it is."
            )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        source.save_model(str(path), format="json")
        content: dict[str, Any] = json.loads(path.read_text())
    return content


def _forest(dump: Mapping[str, Any], classes: Array | None) -> Forest:
    scale, base = dump["scale_and_bias"]
    base = np.asarray(base, np.float64).reshape(-1)
    features = {entry["feature_index"]: entry for entry in dump["features_info"].get("float_features", [])}
    plain = dump.get("oblivious_trees")
    trees = (
        [_level_tree(tree, features, scale) for tree in plain]
        if plain is not None
        else [_free_tree(tree, features, scale) for tree in dump["trees"]]
    )
    scores = trees[0].weights.shape[1]
    loss = dump["model_info"]["params"]["loss_function"]["type"]
    link = _CLASSIFIERS.get(loss) if classes is not None else Link.EXP if loss in _EXPONENTIAL else Link.IDENTITY
    if link is None:
        raise UnsupportedSourceError(f"CatBoost's loss {loss!r} of a classifier has no portable form here yet.")
    base = np.broadcast_to(base if base.size else np.zeros(1), (scores,))
    return Forest(trees, scores, base, link=link, classes=classes)


def _level_tree(tree: Mapping[str, Any], features: Mapping[int, Any], scale: float) -> Tree:
    """A tree that asks the same of all nodes of a level; the last question stands at the root."""
    splits = tree["splits"] or []
    depth = len(splits)
    inner, leaves = 2**depth - 1, 2**depth
    levels = np.floor(np.log2(np.arange(1, inner + 1))).astype(int) if inner else np.zeros(0, int)
    asked = [splits[depth - 1 - level] for level in range(depth)]
    feature, threshold, missing = _questions(asked, features)
    places = np.arange(inner)
    values = np.asarray(tree["leaf_values"], np.float64).reshape(leaves, -1) * scale
    none = np.zeros(leaves, int)
    return Tree(
        feature=np.concatenate([feature[levels], none]),
        threshold=np.concatenate([threshold[levels], none]),
        compare=np.concatenate([np.full(inner, Compare.AT_MOST.value), np.full(leaves, Compare.LEAF.value)]),
        yes=np.concatenate([2 * places + 1, none]),
        no=np.concatenate([2 * places + 2, none]),
        missing_yes=np.concatenate([missing[levels], none.astype(bool)]),
        weights=np.concatenate([np.zeros((inner, values.shape[1])), values]),
    )


def _free_tree(root: Mapping[str, Any], features: Mapping[int, Any], scale: float) -> Tree:
    """A tree of any shape."""
    found: list[tuple[Mapping[str, Any], list[int]]] = []
    waiting: list[tuple[Mapping[str, Any], int]] = [(root, -1)]
    while waiting:
        node, parent = waiting.pop()
        if parent >= 0:
            found[parent][1].append(len(found))
        found.append((node, []))
        if "split" in node:
            waiting += [(node["right"], len(found) - 1), (node["left"], len(found) - 1)]
    is_leaf = np.array(["split" not in node for node, _ in found])
    leaf = next(node for node, _ in found if "split" not in node)
    size = np.asarray(leaf["value"]).size
    feature, threshold, missing = _questions([node.get("split") for node, _ in found], features)
    return Tree(
        feature=feature,
        threshold=threshold,
        compare=np.where(is_leaf, Compare.LEAF.value, Compare.AT_MOST.value),
        yes=np.array([children[0] if children else 0 for _, children in found]),
        no=np.array([children[1] if children else 0 for _, children in found]),
        missing_yes=missing,
        weights=np.array([np.asarray(node.get("value", [0.0] * size)).reshape(-1) * scale for node, _ in found]),
    )


def _questions(splits: Sequence[Any], features: Mapping[int, Any]) -> tuple[Array, Array, Array]:
    """Columns, thresholds, and whether NaN is at most the threshold; CatBoost itself asks `x > border`."""
    columns, borders, missing = [], [], []
    for split in splits:
        if split is None:
            columns.append(0)
            borders.append(0.0)
            missing.append(False)
            continue
        if split["split_type"] != "FloatFeature":
            raise UnsupportedSourceError(f"CatBoost's split {split['split_type']!r} has no portable form here.")
        feature = features[split["float_feature_index"]]
        columns.append(feature["flat_feature_index"])
        borders.append(split["border"])
        missing.append(feature["nan_value_treatment"] != "AsTrue")
    return np.array(columns, int), np.array(borders, np.float64), np.array(missing, bool)
