"""Tree ensembles within a float64 graph: they compute in float32, so their inputs are cast just before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto, helper

if TYPE_CHECKING:
    from onnx import ModelProto


def cast_before_trees(model: ModelProto) -> None:
    """Have every tree ensemble take float32, and let what it gives be float32 as well.

    A scaler in float32 before trees moves values across thresholds; in float64 with one rounding at the trees it does
    not, because that is where scikit-learn itself rounds.
    """
    nodes = []
    given = set()
    for index, node in enumerate(model.graph.node):
        if node.op_type.startswith("TreeEnsemble"):
            narrow = f"{node.input[0]}_float32_{index}"
            nodes.append(helper.make_node("Cast", [node.input[0]], [narrow], to=TensorProto.FLOAT))
            node.input[0] = narrow
            given.update(node.output)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for value in model.graph.output:
        if value.name in given and value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
