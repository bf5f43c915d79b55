"""Passes on small graphs that are made so that each has something to do."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelserve.bundle import Bundle, Origin, Step, write
from modelserve.errors import OptimizationError
from modelserve.optimize import Auto, Fuse, Goal, Prune, Quantize, int8, mixed, optimize
from modelserve.optimize.draft import Draft, Memory, Pass
from modelserve.optimize.least_squares import allocate, eliminate
from modelserve.optimize.mixed import int8_mixed, sensitivity
from modelserve.optimize.recipes import candidates
from modelserve.optimize.smooth import smooth
from modelserve.optimize.structured import structured
from modelserve.optimize.surgery import name_nodes
from modelserve.session import Session, session_settings
from modelserve.tensors import Signature, TensorSpec

RANDOM = np.random.default_rng(0)


def chain_of(*weights: np.ndarray, activation: str = "Tanh") -> onnx.ModelProto:
    """`x` -> MatMul -> activation -> MatMul -> ... -> `y`."""
    nodes, value = [], "x"
    for index in range(len(weights)):
        last = index == len(weights) - 1
        made = "y" if last else f"sums_{index}"
        nodes.append(helper.make_node("MatMul", [value, f"w{index}"], [made]))
        if not last:
            nodes.append(helper.make_node(activation, [made], [f"units_{index}"]))
        value = f"units_{index}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", 1, ["batch", weights[0].shape[0]])],
        [helper.make_tensor_value_info("y", 1, ["batch", weights[-1].shape[1]])],
        [numpy_helper.from_array(array.astype(np.float32), f"w{index}") for index, array in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    name_nodes(model)
    return model


def bundle_of(model: onnx.ModelProto, inputs: int, outputs: int) -> Bundle:
    return write(
        model,
        signature=Signature(
            (TensorSpec("x", "float32", ("batch", inputs)),), (TensorSpec("y", "float32", ("batch", outputs)),)
        ),
        origin=Origin("test", "Chain"),
        lineage=(Step("make"),),
        example={"x": RANDOM.normal(size=(8, inputs)).astype(np.float32)},
        rows_independent=True,
    )


def with_outlier(rows: int = 200, channel: int = 3, factor: float = 60.0) -> np.ndarray:
    inputs = np.random.default_rng(1).normal(size=(rows, 32)).astype(np.float32)
    inputs[:, channel] *= factor
    return inputs


def matrix(inputs: int, outputs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(inputs, outputs)) / np.sqrt(inputs)


def answer(draft: Draft, inputs: np.ndarray) -> np.ndarray:
    return draft.load().run(None, {"x": inputs})[0]


def error(wanted: np.ndarray, got: np.ndarray) -> float:
    return float(np.sqrt(np.square(wanted - got).mean()) / wanted.std())


def test_units_that_others_can_make_up_for_go_first_and_cost_nothing():
    distinct = RANDOM.normal(size=(500, 4))
    inputs = np.hstack([distinct, distinct])  # each unit twice
    found = eliminate(inputs.T @ inputs / 500, matrix(8, 3), columns=1)
    assert set(found.kept(4) % 4) == {0, 1, 2, 3}, "one of each pair stays"
    assert found.errors[4] < 1e-3 < found.errors[5]
    assert sorted(found.order) == list(range(8))


def test_places_give_up_units_where_that_costs_least():
    spare = RANDOM.normal(size=(500, 8)) @ RANDOM.normal(size=(8, 32))  # 32 units that move as 8 do
    needed = RANDOM.normal(size=(500, 32))
    eliminations = [eliminate(x.T @ x / 500, matrix(32, 5), columns=1) for x in (spare, needed)]
    assert allocate(eliminations, [32, 32], 40, multiple=8) == [8, 32]
    assert allocate(eliminations, [32, 32], 0, multiple=8) == [8, 8], "every place keeps some"


def test_smoothing_keeps_the_function_and_makes_8_bits_closer():
    model = chain_of(matrix(32, 16), activation="Identity")
    inputs = with_outlier()
    # The outlying channel counts no more than the others, as its weights are small.
    weights = matrix(32, 16)
    weights[3] /= 60
    model = chain_of(weights)
    draft, samples = Draft(model), [{"x": inputs[:100]}]
    smoothed = smooth().apply(draft, samples)
    wanted = answer(draft, inputs)
    assert error(wanted, answer(smoothed, inputs)) < 1e-5
    plain, better = (int8.int8_dynamic().apply(item, samples) for item in (draft, smoothed))
    assert error(wanted, answer(better, inputs)) < error(wanted, answer(plain, inputs)) / 3


def test_stored_weights_are_widened_at_load_and_a_quarter_as_large():
    model = chain_of(matrix(64, 256), matrix(256, 64), matrix(64, 5))
    bundle = bundle_of(model, 64, 5)
    stored = optimize(bundle, Quantize("int8-stored"))
    inputs = RANDOM.normal(size=(50, 64)).astype(np.float32)
    wanted, got = (Session(item).run({"x": inputs})["y"] for item in (bundle, stored))
    assert stored.size_bytes < 0.3 * bundle.size_bytes
    assert error(wanted, got) < 0.02
    assert session_settings(stored.manifest) == {"session.disable_quant_qdq": "1"}
    assert stored.rows_independent


def test_the_scan_finds_the_layer_whose_input_has_outliers(monkeypatch: pytest.MonkeyPatch):
    first = matrix(32, 32)
    first[3] /= 60
    model = chain_of(first, matrix(32, 32, 1), matrix(32, 4, 2))
    samples = [{"x": with_outlier()}]
    layers = [node.name for node in model.graph.node if node.op_type == "MatMul"]
    assert sensitivity(Draft(model), layers, samples, bits=8)[0] == layers[0]
    for has_dot_products, kept in ((True, "MatMulNBits"), (False, "DequantizeLinear")):
        monkeypatch.setattr(mixed, "has_integer_dot_products", lambda found=has_dot_products: found)
        changed = int8_mixed(1).apply(Draft(model), samples)
        kinds = [node.op_type for node in changed.model.graph.node]
        assert kinds.count(kept) == 1
        assert kinds.count("MatMulInteger") == 2
        wanted = answer(Draft(model), samples[0]["x"])
        all_narrow = int8.int8_dynamic().apply(Draft(model), samples)
        assert error(wanted, answer(changed, samples[0]["x"])) < error(wanted, answer(all_narrow, samples[0]["x"])) / 2


def test_equal_weights_are_stored_once_and_answer_the_same():
    tied = matrix(64, 64)
    bundle = bundle_of(chain_of(tied, tied, matrix(64, 3)), 64, 3)
    shared = optimize(bundle, Fuse())
    inputs = RANDOM.normal(size=(20, 64)).astype(np.float32)
    wanted, got = (Session(item).run({"x": inputs})["y"] for item in (bundle, shared))
    assert np.array_equal(wanted, got)
    assert shared.size_bytes < 0.6 * bundle.size_bytes
    assert "share" in [step.name for step in shared.manifest.lineage]


@pytest.mark.long
def test_a_model_with_equal_weights_is_still_pruned_and_its_lineage_says_only_what_was_done():
    tied = matrix(64, 64)
    bundle = bundle_of(chain_of(tied, tied, matrix(64, 3), activation="Relu"), 64, 3)
    rows = np.random.default_rng(2).normal(size=(600, 64)).astype(np.float32)
    made = optimize(bundle, Auto(max_drop=0.9, metric="deviation", data=rows, goal="size", budget_s=60))
    report = made.manifest.reports[-1]
    verdicts = {item["name"]: item["verdict"] for item in report["candidates"]}
    assert verdicts["simplify, no SkipLayerNorm fusion"] == "skipped"
    assert all(verdicts[name] != "skipped" for name in verdicts if "int8" in name or "prune" in name)
    by_name = {item["name"]: [step["name"] for step in item["steps"]] for item in report["candidates"]}
    assert by_name["simplify"] == ["simplify", "share"]
    assert by_name["prune 50.0%"] == ["simplify", "prune"], "after pruning nothing is equal any more"


def test_zeros_make_the_compressed_file_smaller_and_the_report_says_so():
    bundle = bundle_of(chain_of(matrix(64, 256), matrix(256, 3)), 64, 3)
    for plan, least in ((Prune(0.8, structured=False), 2.0), (Prune(structured=False, pattern="2:4"), 1.3)):
        found = optimize(bundle, plan).manifest.reports[-1]["candidates"][0]
        assert found["compressed_ratio"] > least
        assert found["size_ratio"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("has_dot_products", "bits"), [(True, 8), (False, 7)])
def test_signed_weights_have_seven_bits_where_sums_of_products_would_overflow(
    monkeypatch: pytest.MonkeyPatch, has_dot_products: bool, bits: int
):
    monkeypatch.setattr(int8, "has_integer_dot_products", lambda: has_dot_products)
    model = chain_of(matrix(32, 16))
    samples = [{"x": with_outlier()}]
    for step in (int8.int8_dynamic(), int8.int8_static()):
        assert step.settings["weight_bits"] == bits
        codes = [
            numpy_helper.to_array(tensor)
            for tensor in step.apply(Draft(model), samples).model.graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
        ]
        assert (np.abs(codes[0].astype(int)).max() > 64) == (bits == 8)


def test_products_of_extreme_inputs_do_not_overflow_on_this_machine():
    # Every product is the largest there is: with overflow the sum is about a half too small.
    model = chain_of(np.full((64, 8), 0.5))
    inputs = np.full((4, 64), 3.0, np.float32)
    for step in (int8.int8_dynamic(), int8.int8_dynamic(signed=False), int8.int8_static()):
        got = answer(step.apply(Draft(model), [{"x": inputs}]), inputs)
        assert got == pytest.approx(96.0, rel=0.02), step


def test_a_pass_that_fails_says_which_and_why():
    def fail(_draft: Draft, _calibration: object) -> Draft:
        raise RuntimeError("no kernel")

    with pytest.raises(OptimizationError, match=r"'broken' failed on this graph: RuntimeError: no kernel"):
        Pass("broken", fail).apply(Draft(chain_of(matrix(4, 4))), [])


def test_what_was_found_about_a_draft_is_asked_for_once():
    memory: Memory[int] = Memory()
    first, second = Draft(chain_of(matrix(4, 4))), Draft(chain_of(matrix(4, 4)))
    answers = iter([1, 2])
    assert [memory.of(draft, lambda: next(answers)) for draft in (first, first, second)] == [1, 1, 2]


def test_the_layer_behind_makes_up_for_units_that_go_and_its_bias_for_their_means():
    # Every unit stands there four times, a little shifted: a quarter of them can say what all of them said.
    random = np.random.default_rng(0)
    distinct = random.normal(size=(16, 8)) / 4
    shifts = np.repeat([0.0, 0.5, 1.0, 1.5], 8)
    arrays = {
        "w1": np.tile(distinct, (1, 4)), "b1": 4 + shifts, "w2": matrix(32, 3), "b2": np.zeros(3),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["units"]),
        helper.make_node("Gemm", ["units", "w2", "b2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "shifted",
        [helper.make_tensor_value_info("x", 1, ["batch", 16])],
        [helper.make_tensor_value_info("y", 1, ["batch", 3])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    inputs = random.normal(size=(400, 16)).astype(np.float32)
    pruned = structured(0.75).apply(Draft(model), [{"x": inputs[:200]}])
    assert pruned.model.ByteSize() < 0.5 * model.ByteSize()
    wanted, got = answer(Draft(model), inputs[200:]), answer(pruned, inputs[200:])
    assert error(wanted, got) < 0.05
    assert np.abs(wanted.mean(axis=0) - got.mean(axis=0)).max() < 0.01


def test_no_candidate_of_a_graph_that_convolves_is_quantised_dynamically():
    weights = np.zeros((8, 1, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "convolution",
        [helper.make_tensor_value_info("x", 1, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["batch", 8, 6, 6])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for goal in Goal:
        found = [step for recipe in candidates(model, goal, exact_only=False) for step in recipe.passes]
        ranges = {step.settings["ranges"] for step in found if step.name == "int8"}
        assert ranges
        assert "dynamic" not in ranges
