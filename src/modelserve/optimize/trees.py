"""A tree ensemble's attributes as arrays.

nodes_*            one entry for each node of each tree
class_* target_*   one entry for each (leaf, score) pair
*_as_tensor        numbers of float64, in the place of the attribute without that ending
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelserve.optimize.draft import InapplicableError
from modelserve.tensors import Array

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto

_WIDE = "_as_tensor"
_KINDS = {"TreeEnsembleClassifier": "class", "TreeEnsembleRegressor": "target"}


class Ensemble:
    """One node. Assigning a filtered array and calling `write` changes the node."""

    def __init__(self, node: NodeProto) -> None:
        self.node = node
        self.prefix = _KINDS[node.op_type]
        self._attributes: dict[str, AttributeProto] = {entry.name: entry for entry in node.attribute}

    def array(self, name: str) -> Array:
        """An attribute's values; "weights_*" stands for this kind's class_* or target_*."""
        return _values(self._attributes[self._real(name)])

    def has(self, name: str) -> bool:
        return self._real(name) in self._attributes

    def keep_nodes(self, mask: Array) -> None:
        """Leave out the entries of nodes where the mask is false."""
        self._filter("nodes_", mask)

    def keep_weights(self, mask: Array) -> None:
        """Leave out the (leaf, score) pairs where the mask is false."""
        self._filter(f"{self.prefix}_", mask)

    def put(self, name: str, values: Array) -> None:
        """Replace an attribute's values."""
        _put(self._attributes[self._real(name)], values)

    def drop(self, name: str) -> None:
        """Leave an attribute out."""
        self.node.attribute.remove(self._attributes.pop(self._real(name)))

    @property
    def trees(self) -> Array:
        """The trees' numbers in order."""
        return np.unique(self.array("nodes_treeids"))

    @property
    def scores(self) -> int:
        """How many scores the trees add to: with one score a tree, that many trees make a round of boosting."""
        return len(np.unique(self.array("weights_ids")))

    @property
    def has_one_score_a_tree(self) -> bool:
        pairs = np.unique(np.stack([self.array("weights_treeids"), self.array("weights_ids")]), axis=1)
        return bool(pairs.shape[1] == len(self.trees))

    def _real(self, name: str) -> str:
        real = name.replace("weights_", f"{self.prefix}_", 1) if name.startswith("weights_") else name
        return f"{real}{_WIDE}" if f"{real}{_WIDE}" in self._attributes else real

    def _filter(self, prefix: str, mask: Array) -> None:
        for name, entry in self._attributes.items():
            if name.startswith(prefix) and len(values := _values(entry)) == len(mask):
                _put(entry, values[mask])


def _values(entry: AttributeProto) -> Array:
    value: Any = helper.get_attribute_value(entry)
    return np.asarray(numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value)


def _put(entry: AttributeProto, values: Array) -> None:
    """Other values of the kind and precision that the attribute has."""
    if entry.type == onnx.AttributeProto.TENSOR:
        before = numpy_helper.to_array(entry.t)
        entry.t.CopyFrom(numpy_helper.from_array(values.astype(before.dtype), entry.t.name))
    else:
        entry.CopyFrom(helper.make_attribute(entry.name, values.tolist()))


def ensembles(model: ModelProto) -> list[Ensemble]:
    """All of a model's tree ensembles.

    Raises:
        InapplicableError: there is none of a kind that can be changed.
    """
    found = list(_find(model))
    if not found:
        newer = any(node.op_type == "TreeEnsemble" for node in model.graph.node)
        raise InapplicableError(
            "The tree ensemble is in the form of ai.onnx.ml 5, which is not taken apart here."
            if newer
            else "The graph has no tree ensemble."
        )
    return found


def _find(model: ModelProto) -> Iterator[Ensemble]:
    for node in model.graph.node:
        if node.op_type in _KINDS and any(entry.name == "nodes_treeids" for entry in node.attribute):
            yield Ensemble(node)
