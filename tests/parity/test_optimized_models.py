"""Passes on real graphs: what they must keep, with the tolerance that each one has."""

import warnings

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelserve.bundle import Bundle, Origin, Step, write
from modelserve.convert import convert
from modelserve.optimize import Compact, Fuse, Prune, Quantize, optimize
from modelserve.session import Session
from modelserve.tensors import Signature, TensorSpec

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (inputs[order] / 16).astype(np.float32), labels[order]


@pytest.fixture
def forest(digits, tmp_path) -> Bundle:
    from sklearn.ensemble import RandomForestClassifier

    inputs, labels = digits
    model = RandomForestClassifier(60, random_state=0).fit(inputs[:1000], labels[:1000])
    return _classifier(_converted(model, inputs), inputs)


@pytest.fixture
def boosted(digits) -> Bundle:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    inputs, labels = digits
    # Its threads wait for each other by spinning, which takes minutes on a machine that is busy with something else.
    with threadpool_limits(1):
        model = HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(inputs[:1000], labels[:1000])
    return _classifier(_converted(model, inputs), inputs)


@pytest.fixture
def wide(digits) -> Bundle:
    """A forest that compares and adds up in float64, whose numbers are tensors."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    inputs, labels = digits[0].astype(np.float64), digits[1]
    with threadpool_limits(1):
        model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(inputs[:1000], labels[:1000])
        return convert(model, inputs[:64])


def _converted(model: object, inputs: np.ndarray) -> onnx.ModelProto:
    from skl2onnx import to_onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's about the converter's casts
        options = {id(model): {"zipmap": False}}
        return to_onnx(model, inputs[:1], options=options, target_opset={"": 21, "ai.onnx.ml": 3})


def _classifier(model: onnx.ModelProto, inputs: np.ndarray) -> Bundle:
    signature = Signature(
        (TensorSpec("X", "float32", ("batch", 64)),),
        (TensorSpec("label", "int64", ("batch",)), TensorSpec("probabilities", "float32", ("batch", 10))),
    )
    return write(
        model,
        signature=signature,
        origin=Origin("sklearn", "Trees"),
        lineage=(Step("convert"),),
        example={"X": inputs[:8]},
        rows_independent=True,
    )


def _answers(bundle: Bundle, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = Session(bundle).run({"X": inputs}, ["label", "probabilities"])
    return found["label"], found["probabilities"]


@pytest.mark.parametrize("kind", ["forest", "boosted"])
def test_a_compacted_ensemble_answers_the_same_and_is_smaller(kind, digits, request):
    bundle = request.getfixturevalue(kind)
    compact = optimize(bundle, Compact())
    (labels, scores), (same_labels, same_scores) = _answers(bundle, digits[0]), _answers(compact, digits[0])
    assert np.array_equal(labels, same_labels)
    # Bit by bit: the weights that are left out are zeros.
    assert np.array_equal(scores, same_scores)
    assert compact.size_bytes < bundle.size_bytes


@pytest.mark.parametrize("kind", ["forest", "boosted"])
def test_an_ensemble_of_half_the_trees_still_gives_probabilities(kind, digits, request):
    bundle = request.getfixturevalue(kind)
    half = optimize(bundle, Prune(0.5), digits[0][1000:1200])
    labels, _ = _answers(bundle, digits[0][1200:])
    fewer, scores = _answers(half, digits[0][1200:])
    assert half.size_bytes < 0.6 * bundle.size_bytes
    assert np.allclose(scores.sum(axis=1), 1, atol=0.02), "the trees that stay are scaled up"
    assert (labels == fewer).mean() > 0.95


def test_a_forest_of_float64_keeps_its_first_trees_and_has_nothing_to_compact(wide, digits):
    rows = digits[0].astype(np.float64)
    node = next(node for node in onnx.load(wide.model_path).graph.node if node.op_type == "TreeEnsembleRegressor")
    assert "target_weights_as_tensor" in [entry.name for entry in node.attribute]
    half = optimize(wide, Prune(0.5), rows[1000:1200])
    names = [spec.name for spec in wide.signature.outputs]
    before, fewer = (Session(bundle).run({"X": rows[1200:]}, names) for bundle in (wide, half))
    assert half.size_bytes < 0.6 * wide.size_bytes
    assert (before["label"] == fewer["label"]).mean() > 0.9
    # Every leaf has one weight, and no statistics of the training were written.
    report = optimize(wide, Compact()).manifest.reports[-1]
    assert [item["reason"] for item in report["candidates"]] == [
        "The tree ensemble is as compact as it can be already."
    ]


def test_an_ensemble_is_skipped_by_what_is_for_layers(forest):
    same = optimize(forest, Quantize("int8"))
    assert same.digest == forest.digest
    assert {item["verdict"] for item in same.manifest.reports[-1]["candidates"]} == {"skipped"}


def convolutional(seed: int = 0, channels: int = 16) -> Bundle:
    """`image` float32[batch, 1, 8, 8] -> `scores`; Conv, BatchNormalization, pooling, Reshape, Gemm; random weights."""
    random = np.random.default_rng(seed)

    def of(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    weights = {
        "w1": of(channels, 1, 3, 3), "c1": of(channels), "gain": 1 + of(channels) / 4, "shift": of(channels),
        "mean": of(channels), "spread": np.full(channels, 0.7, np.float32), "w2": of(channels, channels, 3, 3),
        "c2": of(channels), "flat": np.array([-1, channels * 4]), "w3": of(10, channels * 4), "c3": of(10),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "w1", "c1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "gain", "shift", "mean", "spread"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["d", "w2", "c2"], ["e"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("Reshape", ["f", "flat"], ["g"]),
        helper.make_node("Gemm", ["g", "w3", "c3"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [helper.make_tensor_value_info("image", 1, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", 1, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    signature = Signature(
        (TensorSpec("image", "float32", ("batch", 1, 8, 8)),), (TensorSpec("scores", "float32", ("batch", 10)),)
    )
    return write(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        signature=signature,
        origin=Origin("test", "Convolutional"),
        lineage=(Step("make"),),
        example={"image": random.normal(size=(4, 1, 8, 8)).astype(np.float32)},
        rows_independent=True,
    )


IMAGES = np.random.default_rng(3).normal(size=(300, 1, 8, 8)).astype(np.float32)


def _moved(before: Bundle, after: Bundle) -> float:
    """The error relative to the spread of the outputs."""
    want, got = (Session(bundle).run({"image": IMAGES})["scores"] for bundle in (before, after))
    return float(np.sqrt(np.square(want - got).mean()) / want.std())


def test_folding_a_normalisation_changes_nothing_but_rounding():
    bundle = convolutional()
    folded = optimize(bundle, Fuse())
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(folded.model_path).graph.node}
    assert _moved(bundle, folded) < 1e-5


def test_channels_are_really_removed_and_the_next_layer_makes_up_for_them():
    bundle = convolutional()
    pruned = optimize(bundle, Prune(0.5), IMAGES[:200])
    shapes = sorted(
        tuple(tensor.dims) for tensor in onnx.load(pruned.model_path).graph.initializer if len(tensor.dims) == 4
    )
    assert shapes == [(8, 1, 3, 3), (8, 8, 3, 3)]
    # Random weights are the worst case, as nothing in them repeats; without the least squares it is above 0.7.
    assert _moved(bundle, pruned) < 0.55


def test_convolutions_are_quantised_statically_never_dynamically():
    bundle = convolutional()
    quantized = optimize(bundle, Quantize("int8"), IMAGES[:100])
    kinds = {node.op_type for node in onnx.load(quantized.model_path).graph.node}
    assert "QuantizeLinear" in kinds
    assert "ConvInteger" not in kinds
    assert _moved(bundle, quantized) < 0.05


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.02), (4, 0.2)])
def test_packed_weights_are_read_by_the_runtime_as_they_were_meant(bits, tolerance):
    # One that is off by a nibble or a scale misses by far more.
    bundle = convolutional()
    assert _moved(bundle, optimize(bundle, Quantize(f"int{bits}-weights"))) < tolerance


@pytest.mark.parametrize("ranges", ["minmax", "entropy", "percentile"])
def test_every_way_of_finding_ranges_works_and_prints_nothing(ranges, capsys):
    bundle = convolutional()
    # With few samples the histogram methods cut off more than is good.
    assert _moved(bundle, optimize(bundle, Quantize("int8-static", ranges=ranges), IMAGES[:100])) < 0.3
    assert capsys.readouterr() == ("", "")


def test_half_precision_halves_the_file():
    bundle = convolutional(channels=64)
    halved = optimize(bundle, Quantize("float16"))
    assert halved.size_bytes < 0.6 * bundle.size_bytes
    assert _moved(bundle, halved) < 0.01
