"""Make a model smaller and faster within a bound, and look at what was tried.

python examples/optimise.py [report.html]
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelserve.bundle import Bundle, Origin, Step, write
from modelserve.optimize import Auto, Prune, Quantize, optimize, plot
from modelserve.tensors import Signature, TensorSpec


def trained() -> tuple[Bundle, np.ndarray, np.ndarray]:
    """A classifier of handwritten digits, and rows that it was not trained on."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    inputs, labels = load_digits(return_X_y=True)
    inputs = (inputs / 16).astype(np.float32)
    model = MLPClassifier((256, 256), max_iter=40, random_state=0, early_stopping=True).fit(inputs[:900], labels[:900])
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w0", "b0"], ["s0"]),
            helper.make_node("Relu", ["s0"], ["h0"]),
            helper.make_node("Gemm", ["h0", "w1", "b1"], ["s1"]),
            helper.make_node("Relu", ["s1"], ["h1"]),
            helper.make_node("Gemm", ["h1", "w2", "b2"], ["scores"]),
        ],
        "digits",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 10])],
        [
            numpy_helper.from_array(array.astype(np.float32), f"{letter}{index}")
            for letter, arrays in (("w", model.coefs_), ("b", model.intercepts_))
            for index, array in enumerate(arrays)
        ],
    )
    bundle = write(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        signature=Signature(
            (TensorSpec("x", "float32", ("batch", 64)),), (TensorSpec("scores", "float32", ("batch", 10)),)
        ),
        origin=Origin("scikit-learn", "MLPClassifier"),
        lineage=(Step("convert"),),
        example={"x": inputs[:8]},
        rows_independent=True,
    )
    return bundle, inputs[900:], labels[900:]


def main() -> None:
    bundle, inputs, labels = trained()

    smaller = optimize(bundle, Prune(0.5) >> Quantize("int8"), inputs[:200])
    print(f"An explicit plan: {bundle.size_bytes} -> {smaller.size_bytes} bytes")

    plan = Auto(max_drop=0.02, metric="accuracy", data=(inputs, labels), goal="size", budget_s=20)
    best = optimize(bundle, plan)
    report = best.manifest.reports[-1]
    for item in report["candidates"]:
        print(f"  {item['name']:28s} {item['verdict']:16s} {item['reason']}")
    print(f"Auto: {report['chosen'] or report['reason']}; {bundle.size_bytes} -> {best.size_bytes} bytes")

    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(plot(report))


if __name__ == "__main__":
    main()
