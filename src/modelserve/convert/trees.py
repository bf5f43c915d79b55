"""What computes in float32 within a float64 graph of skl2onnx: its inputs are cast just before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from modelserve.convert.forest import EXACT

if TYPE_CHECKING:
    from onnx import ModelProto

_SUPPORT_VECTORS = {"SVMClassifier", "SVMRegressor"}


def cast_before_trees(model: ModelProto) -> None:
    """Have what computes in float32 only take float32, and let what it gives be float32 as well.

    A scaler in float32 before trees moves values across thresholds; in float64 with one rounding at the trees it does
    not, because that is where scikit-learn itself rounds. onnxruntime has support vectors in float32 only, too; what
    comes behind them is given float64 again.
    """
    nodes = []
    given = set()
    for index, node in enumerate(model.graph.node):
        is_tree = node.op_type.startswith("TreeEnsemble") and node.doc_string != EXACT
        if is_tree or node.op_type in _SUPPORT_VECTORS:
            narrow = f"{node.input[0]}_float32_{index}"
            nodes.append(helper.make_node("Cast", [node.input[0]], [narrow], to=TensorProto.FLOAT))
            node.input[0] = narrow
        nodes.append(node)
        if is_tree:
            given.update(node.output)
        elif node.op_type in _SUPPORT_VECTORS:
            wide, node.output[-1] = node.output[-1], f"{node.output[-1]}_float32"
            nodes.append(helper.make_node("Cast", [node.output[-1]], [wide], to=TensorProto.DOUBLE))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for value in model.graph.output:
        if value.name in given and value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def tree_thresholds(source: Any) -> Iterator[Any]:
    """The threshold arrays of every scikit-learn tree within an estimator, however deep."""
    seen: set[int] = set()
    waiting = [source]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, str | int | float | bool | None):
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            waiting += part
        elif type(part).__module__.startswith("numpy") and getattr(part, "dtype", np.dtype(float)).kind == "O":
            waiting += list(part.ravel())
        elif hasattr(part, "tree_"):
            yield part.tree_.threshold
        elif hasattr(part, "get_params"):
            waiting += [value for name, value in vars(part).items() if name.endswith("_") or name == "steps"]
