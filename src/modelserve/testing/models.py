"""Small real models, made without any framework.

Each is a bundle with weights from a fixed seed: the same call always gives the same digest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelserve.bundle import Bundle, LiveCallable, Origin, Step, write
from modelserve.tensors import Array, Signature, Tensors, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_OPSET = 17


@dataclass(frozen=True, slots=True)
class _Graph:
    nodes: Sequence[NodeProto]
    weights: Mapping[str, Array]


def linear(features: int = 4, outputs: int = 3, *, seed: int = 0) -> Bundle:
    """`x` float32[batch, features] -> `y` float32[batch, outputs]: x @ weights + bias. Rows are independent."""
    from onnx import helper

    random = np.random.default_rng(seed)
    weights = {
        "weights": random.normal(size=(features, outputs)).astype(np.float32),
        "bias": random.normal(size=outputs).astype(np.float32),
    }
    graph = _Graph([helper.make_node("Gemm", ["x", "weights", "bias"], ["y"])], weights)
    signature = Signature(
        (TensorSpec("x", "float32", ("batch", features)),), (TensorSpec("y", "float32", ("batch", outputs)),)
    )
    return _bundle("Linear", graph, signature, {"x": random.normal(size=(4, features)).astype(np.float32)})


def mlp(features: int = 8, hidden: int = 16, classes: int = 3, *, seed: int = 0) -> Bundle:
    """`x` float32[batch, features] -> `label` int64[batch] and `probabilities` float32[batch, classes]."""
    from onnx import helper

    random = np.random.default_rng(seed)
    weights = {
        "first": random.normal(size=(features, hidden)).astype(np.float32),
        "second": random.normal(size=(hidden, classes)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    signature = Signature(
        (TensorSpec("x", "float32", ("batch", features)),),
        (TensorSpec("label", "int64", ("batch",)), TensorSpec("probabilities", "float32", ("batch", classes))),
        "label",
    )
    example = {"x": random.normal(size=(4, features)).astype(np.float32)}
    return _bundle("TinyClassifier", _Graph(nodes, weights), signature, example)


def two_inputs() -> Bundle:
    """`left` float32[batch, 3] and `right` int64[batch] -> `total` float32[batch, 3]: left + right by row."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["right"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["numbers", "axis"], ["column"]),
        helper.make_node("Add", ["left", "column"], ["total"]),
    ]
    signature = Signature(
        (TensorSpec("left", "float32", ("batch", 3)), TensorSpec("right", "int64", ("batch",))),
        (TensorSpec("total", "float32", ("batch", 3)),),
    )
    example = {"left": np.ones((2, 3), np.float32), "right": np.array([1, 2])}
    return _bundle("TwoInputs", _Graph(nodes, {"axis": np.array([1])}), signature, example)


def text() -> Bundle:
    """`word` string[batch] -> `echo` string[batch]: the same text."""
    from onnx import helper

    spec = TensorSpec("word", "string", ("batch",))
    signature = Signature((spec,), (TensorSpec("echo", "string", ("batch",)),))
    graph = _Graph([helper.make_node("Identity", ["word"], ["echo"])], {})
    return _bundle("Echo", graph, signature, {"word": np.array(["yes", "größer"], object)})


def slow(repeats: int = 200, size: int = 128) -> Bundle:
    """`x` float32[batch, size] -> `y`: some milliseconds for each row, all of it in native code."""
    from onnx import helper

    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0].astype(np.float32)
    names = ["x", *(f"turned_{step}" for step in range(repeats - 1)), "y"]
    nodes = [helper.make_node("MatMul", [before, "turn"], [after]) for before, after in itertools.pairwise(names)]
    signature = Signature(
        (TensorSpec("x", "float32", ("batch", size)),), (TensorSpec("y", "float32", ("batch", size)),)
    )
    return _bundle("Slow", _Graph(nodes, {"turn": turn}), signature, {"x": np.ones((1, size), np.float32)})


def joint() -> Bundle:
    """`x` float32[batch, 2] -> `y` float32[batch, 2]: x minus the mean of all rows, so that no request can be split."""
    from onnx import helper

    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    signature = Signature((TensorSpec("x", "float32", ("batch", 2)),), (TensorSpec("y", "float32", ("batch", 2)),))
    return _bundle("Centred", _Graph(nodes, {}), signature, {"x": np.eye(2, dtype=np.float32)}, rows_independent=False)


def picky(size: int = 4) -> Bundle:
    """`index` int64[batch] -> `value` float32[batch] from a table: the model itself refuses any index beyond it."""
    from onnx import helper

    nodes = [helper.make_node("Gather", ["table", "index"], ["value"])]
    signature = Signature((TensorSpec("index", "int64", ("batch",)),), (TensorSpec("value", "float32", ("batch",)),))
    table = np.arange(size, dtype=np.float32)
    return _bundle("Lookup", _Graph(nodes, {"table": table}), signature, {"index": np.array([0, size - 1])})


def live(reason: str = "It is a plain Python function.") -> LiveCallable:
    """A callable that doubles `x` float32[batch, 2] into `y`, as it travels to the application's own workers."""
    import cloudpickle

    def double(tensors: Tensors) -> dict[str, Any]:
        return {"y": tensors["x"] * 2}

    # By value: the workers need not have this module.
    double.__module__ = "__main__"
    signature = Signature((TensorSpec("x", "float32", ("batch", 2)),), (TensorSpec("y", "float32", ("batch", 2)),))
    return LiveCallable(cloudpickle.dumps(double), signature, reason)


def _bundle(
    kind: str, graph: _Graph, signature: Signature, example: Tensors, *, rows_independent: bool = True
) -> Bundle:
    return write(
        _model(graph, signature),
        signature=signature,
        origin=Origin("modelserve.testing", kind),
        lineage=(Step("make", {"kind": kind}),),
        example=example,
        rows_independent=rows_independent,
    )


def _model(graph: _Graph, signature: Signature) -> ModelProto:
    from onnx import checker, helper, numpy_helper

    made = helper.make_graph(
        list(graph.nodes),
        "model",
        [_value(spec) for spec in signature.inputs],
        [_value(spec) for spec in signature.outputs],
        [numpy_helper.from_array(array, name) for name, array in graph.weights.items()],
    )
    model: ModelProto = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    checker.check_model(model, full_check=True)
    return model


def _value(spec: TensorSpec) -> Any:
    from onnx import TensorProto, helper

    kind = TensorProto.STRING if spec.dtype == "string" else helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(spec.name, kind, list(spec.shape))
