"""Bundles that a rehearsal makes for itself."""

from __future__ import annotations

import numpy as np

from modelserve.bundle import Bundle, Origin, Step, write
from modelserve.tensors import Signature, TensorSpec

_FEATURES, _OUTPUTS = 4, 3


def sample() -> Bundle:
    """A small model, for whoever rehearses a target before there is one: `x` float32[batch, 4] -> `y`."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(_FEATURES, _OUTPUTS)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "sample",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", _FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", _OUTPUTS])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return write(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        signature=Signature(
            (TensorSpec("x", "float32", ("batch", _FEATURES)),), (TensorSpec("y", "float32", ("batch", _OUTPUTS)),)
        ),
        origin=Origin("modelserve.rehearsal", "Sample"),
        lineage=(Step("make", {"kind": "sample"}),),
        example={"x": np.linspace(-1, 1, 2 * _FEATURES, dtype=np.float32).reshape(2, _FEATURES)},
        rows_independent=True,
    )


def successor(bundle: Bundle) -> Bundle:
    """Another version that answers the same: one more step in the lineage, so that its digest is another."""
    import onnx

    manifest = bundle.manifest
    return write(
        onnx.load(str(bundle.model_path)),
        signature=manifest.signature,
        origin=manifest.origin,
        lineage=(*manifest.lineage, Step("rehearse", {"version": 2})),
        example=bundle.example(),
        rows_independent=manifest.rows_independent,
    )
