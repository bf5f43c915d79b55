"""Decision trees of any framework as one tree ensemble of ONNX, and what follows from their sums.

    parts ──gather──► x ──► TreeEnsembleRegressor ──► scores ──link──► probabilities ──► label
                                                             └───────► value

One writer for all frameworks, because what goes wrong in trees goes wrong in all of them: where a number is rounded
before it is compared, where a missing one goes, and that sets of categories have no operator of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, numpy_helper

from modelserve.convert.drawing import Drawing, Part, gather
from modelserve.tensors import Array

#: Marks the ensembles that compare in float64 themselves (see `trees.cast_before_trees`).
EXACT = "compares_float64"


class Compare(Enum):
    """When a row goes to a node's `yes`; LEAF has no such."""

    LEAF = 0
    AT_MOST = 1
    BELOW = 2
    EQUAL = 3


class Link(Enum):
    """What becomes of the scores."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    EXP = "exp"
    SQUARE = "square"  # keeping the sign
    SOFTPLUS = "softplus"
    POSITIVE = "positive"  # 1 where the score is above 0


_MODES = {
    Compare.LEAF: b"LEAF",
    Compare.AT_MOST: b"BRANCH_LEQ",
    Compare.BELOW: b"BRANCH_LT",
    Compare.EQUAL: b"BRANCH_EQ",
}
_MODE_BYTES = np.array([_MODES[compare] for compare in Compare])


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree, its root first; arrays of shape (nodes,), where not said otherwise.

    Attributes:
        compare: `Compare` values.
        yes, no: The children's positions; whatever at leaves.
        missing_yes: Whether NaN goes to `yes`.
        weights: What leaves add: (nodes,) to the score `score`, or (nodes, scores) to all.
    """

    feature: Array
    threshold: Array
    compare: Array
    yes: Array
    no: Array
    missing_yes: Array
    weights: Array
    score: int = 0


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees whose sums are answers.

    Attributes:
        scores: How many sums each row has.
        base: What is added to the sums; shape (scores,).
        count: What the sums are divided by, before `base`; the number of trees where these are averaged.
        slope: What the scores are multiplied by before the link.
        rounds_inputs: The framework compares float32(x); otherwise it compares what it is given.
        categorical: Features whose values are categories' numbers, fractions cut off.
        codes: Features given as text or as other values than the trees compare: the values of the categories
            numbered 0, 1, ...; any other is missing.
        classes: A classifier's labels in the order of its probabilities.
    """

    trees: Sequence[Tree]
    scores: int
    base: Array
    count: float = 1.0
    slope: float = 1.0
    link: Link = Link.IDENTITY
    rounds_inputs: bool = True
    categorical: frozenset[int] = frozenset()
    codes: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    classes: Array | None = None


def draw(forest: Forest, parts: Sequence[Part], drawing: Drawing, *, double: bool) -> Mapping[str, str]:
    """Append a forest to a drawing.

    Args:
        parts: The forest's features in order, of any dtypes.
        double: Compare and add up in float64 where the framework does.

    Returns:
        Values by what they are. A classifier's: `label` (rows,), `probabilities` (rows, classes), `scores`
        (rows, scores); a regressor's: `value` (rows,), or (rows, scores) where there are several.
    """
    exact = double and not forest.rounds_inputs
    x = gather(parts, drawing, double=exact, codes=forest.codes)
    if forest.categorical:
        x = _cut_fractions(x, forest.categorical, sum(part.width for part in parts), drawing)
    scores = _ensemble(forest, x, drawing, exact=exact)
    return answer(scores, forest.scores, forest.link, drawing, slope=forest.slope, classes=forest.classes)


def answer(
    scores: str, count: int, link: Link, drawing: Drawing, *, slope: float = 1.0, classes: Array | None = None
) -> Mapping[str, str]:
    """What follows from scores, (rows, count); see `draw`. A single score decides by its sign."""
    steep = scores if slope == 1.0 else drawing.add("Mul", [scores, drawing.like(slope, scores)])
    linked = _link(steep, link, drawing)
    if classes is None:
        return {"value": drawing.flat(linked) if count == 1 else linked}
    if count == 1:
        linked = drawing.add("Concat", [drawing.add("Sub", [drawing.like(1.0, linked), linked]), linked], axis=1)
    return {"label": label(scores, count, classes, drawing), "probabilities": linked, "scores": scores}


def label(scores: str, count: int, classes: Array, drawing: Drawing) -> str:
    """The class of the highest score of each row, the first of equal ones; of one score, by its sign. (rows,)."""
    if count == 1:
        above = drawing.add("Greater", [scores, drawing.like(0.0, scores)])
        best = drawing.flat(drawing.add("Cast", [above], to=TensorProto.INT64))
    else:
        best = drawing.add("ArgMax", [scores], axis=1, keepdims=0)
    return drawing.add("Gather", [drawing.weight(as_labels(classes)), best], axis=0)


def as_labels(classes: Array) -> Array:
    """Labels as ONNX has them: whole numbers or text."""
    return classes.astype(np.int64) if classes.dtype.kind in "biuf" else classes.astype(object)


class Members(NamedTuple):
    """A node's question for several categories: those in `categories` go to `yes`, all others to `no`."""

    categories: Array
    yes: int
    no: int
    missing_yes: bool = False


def with_sets(tree: Tree, sets: Mapping[int, Members]) -> Tree:
    """The tree with the nodes at these positions asking for categories: a chain of nodes, one a category.

    The chain's first node stands in the place of the node itself, the others behind all nodes; onnxruntime makes one
    comparison of them again.
    """
    columns: dict[str, list[Any]] = {
        name: list(getattr(tree, name)) for name in ("feature", "threshold", "compare", "yes", "no", "missing_yes")
    }
    weights = tree.weights
    for at, members in sets.items():
        # No category at all: one that there cannot be, so that everything goes to `no`.
        categories = members.categories if len(members.categories) else [-1.0]
        first = len(columns["feature"])
        places = [at, *range(first, first + len(categories) - 1)]
        after = [*places[1:], members.no]
        for place, category, no in zip(places, categories, after, strict=True):
            node = (columns["feature"][at], category, Compare.EQUAL.value, members.yes, no, members.missing_yes)
            for values, value in zip(columns.values(), node, strict=True):
                values[place : place + 1] = [value]
        weights = np.concatenate([weights, np.zeros((len(places) - 1, *weights.shape[1:]), weights.dtype)])
    changed: dict[str, Any] = {name: np.asarray(values) for name, values in columns.items()}
    return replace(tree, weights=weights, **changed)


def _cut_fractions(x: str, categorical: frozenset[int], features: int, drawing: Drawing) -> str:
    """Categories' numbers towards zero, as a cast to a whole number does; NaN stays."""
    mask = np.isin(np.arange(features), list(categorical)).reshape(1, -1)
    whole = drawing.add("Mul", [drawing.add("Sign", [x]), drawing.add("Floor", [drawing.add("Abs", [x])])])
    return drawing.add("Where", [drawing.weight(mask), whole, x])


def _ensemble(forest: Forest, x: str, drawing: Drawing, *, exact: bool) -> str:
    attributes = _attributes(forest)
    values, weights = attributes.pop("values"), attributes.pop("weights")
    compare = attributes.pop("compare")
    base = np.asarray(forest.base, np.float64)
    has_base = bool(base.any()) and forest.count == 1.0
    if exact:
        largest = np.finfo(np.float64).max
        tensors = {"nodes_values_as_tensor": np.clip(values, -largest, largest), "target_weights_as_tensor": weights}
        tensors |= {"base_values_as_tensor": base} if has_base else {}
        floats = {name: numpy_helper.from_array(value, name) for name, value in tensors.items()}
    else:
        floats = {"nodes_values": _not_above(values, compare).tolist(), "target_weights": weights.tolist()}
        floats |= {"base_values": base.tolist()} if has_base else {}
    sums = drawing.add(
        "TreeEnsembleRegressor",
        [x],
        "ai.onnx.ml",
        n_targets=forest.scores,
        nodes_modes=_MODE_BYTES[compare].tolist(),
        **{name: value.tolist() for name, value in attributes.items()},
        **floats,
    )
    if exact:
        drawing.nodes[-1].doc_string = EXACT
    if forest.count != 1.0:
        # Divided afterwards: whole votes add up without a rounding, so that ties stay ties.
        sums = drawing.add("Div", [sums, drawing.numbers(forest.count)])
        if base.any():
            sums = drawing.add("Add", [sums, drawing.weight(base.astype(np.float32))])
    return sums


def _attributes(forest: Forest) -> dict[str, Array]:
    """The node's lists, one entry a node or one for each (leaf, score) pair."""
    sizes = [len(tree.feature) for tree in forest.trees]
    positions = np.concatenate([np.arange(size) for size in sizes])
    tree_ids = np.repeat(np.arange(len(sizes)), sizes)
    compare = np.concatenate([tree.compare for tree in forest.trees]).astype(np.int64)
    is_leaf = compare == Compare.LEAF.value

    def joined(name: str) -> Array:
        values = np.concatenate([getattr(tree, name) for tree in forest.trees])
        return np.where(is_leaf, 0, values)

    per_score = [_weights(tree, forest.scores) for tree in forest.trees]
    leaves = [np.flatnonzero(tree.compare == Compare.LEAF.value) for tree in forest.trees]
    return {
        "compare": compare,
        "values": joined("threshold").astype(np.float64),
        "nodes_treeids": tree_ids,
        "nodes_nodeids": positions,
        "nodes_featureids": joined("feature").astype(np.int64),
        "nodes_truenodeids": joined("yes").astype(np.int64),
        "nodes_falsenodeids": joined("no").astype(np.int64),
        "nodes_missing_value_tracks_true": joined("missing_yes").astype(np.int64),
        "target_treeids": np.concatenate(
            [
                np.repeat(index, len(leaf) * len(ids))
                for index, (leaf, (ids, _)) in enumerate(zip(leaves, per_score, strict=True))
            ]
        ),
        "target_nodeids": np.concatenate(
            [np.repeat(leaf, len(ids)) for leaf, (ids, _) in zip(leaves, per_score, strict=True)]
        ),
        "target_ids": np.concatenate(
            [np.tile(ids, len(leaf)) for leaf, (ids, _) in zip(leaves, per_score, strict=True)]
        ),
        "weights": np.concatenate([table[leaf].ravel() for leaf, (_, table) in zip(leaves, per_score, strict=True)]),
    }


def _weights(tree: Tree, scores: int) -> tuple[Array, Array]:
    """The scores that a tree adds to, and what: (nodes, those scores)."""
    if tree.weights.ndim == 1:
        return np.array([tree.score]), tree.weights.astype(np.float64).reshape(-1, 1)
    return np.arange(scores), tree.weights.astype(np.float64)


def _not_above(values: Array, compare: Array) -> Array:
    """Thresholds in float32 that tell any two float32 numbers apart as the float64 ones do.

    `x <= t` holds for the same float32 x when t is rounded down; `x < t` when it is rounded up.
    """
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    largest = np.finfo(np.float32).max
    down = np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
    up = np.where(near < values, np.nextafter(near, np.float32(np.inf)), near)
    rounded = np.where(compare == Compare.BELOW.value, up, down)
    # Every number is at most infinity, and the largest number does as well; some exporters never return from it.
    return np.clip(rounded, -largest, largest).astype(np.float32)


def _link(scores: str, link: Link, drawing: Drawing) -> str:
    if link is Link.SIGMOID:
        return drawing.add("Sigmoid", [scores])
    if link is Link.SOFTMAX:
        return drawing.add("Softmax", [scores], axis=1)
    if link is Link.EXP:
        return drawing.add("Exp", [scores])
    if link is Link.SQUARE:
        return drawing.add("Mul", [scores, drawing.add("Abs", [scores])])
    if link is Link.SOFTPLUS:
        return drawing.add("Softplus", [scores])
    if link is Link.POSITIVE:
        above = drawing.add("Greater", [scores, drawing.like(0.0, scores)])
        return drawing.add("Cast", [above], to=TensorProto.FLOAT)
    return scores
