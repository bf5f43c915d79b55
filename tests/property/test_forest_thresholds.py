"""A forest's questions: in float32 as in float64, whatever threshold lies between two neighbouring numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelserve.convert.drawing import Drawing, Part, initializers
from modelserve.convert.forest import Compare, Forest, Tree, draw
from modelserve.session import load

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def answers_yes(threshold: float, compare: Compare, rows: np.ndarray, *, double: bool) -> np.ndarray:
    """What a drawn forest of one question answers: 1 for yes."""
    leaf = Compare.LEAF.value
    tree = Tree(
        feature=np.array([0, 0, 0]),
        threshold=np.array([threshold, 0.0, 0.0]),
        compare=np.array([compare.value, leaf, leaf]),
        yes=np.array([1, 0, 0]),
        no=np.array([2, 0, 0]),
        missing_yes=np.zeros(3, bool),
        weights=np.array([0.0, 1.0, 0.0]),
    )
    drawing = Drawing("forest_")
    forest = Forest([tree], 1, np.zeros(1), rounds_inputs=not double)
    value = draw(forest, [Part("x", 1)], drawing, double=double)["value"]
    kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
    graph = helper.make_graph(
        drawing.nodes,
        "forest",
        [helper.make_tensor_value_info("x", kind, ["batch", 1])],
        [helper.make_empty_tensor_value_info(value)],
        list(initializers(drawing)),
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    found = load(model.SerializeToString()).run(None, {"x": rows.reshape(-1, 1)})[0]
    return found.reshape(-1) == 1.0


def holds(compare: Compare, rows: np.ndarray, threshold: float) -> np.ndarray:
    return rows <= threshold if compare is Compare.AT_MOST else rows < threshold


@settings(max_examples=150)
@given(number=NUMBERS, share=st.floats(0, 1), compare=st.sampled_from([Compare.AT_MOST, Compare.BELOW]))
def test_a_float32_graph_tells_neighbouring_numbers_apart_as_the_float64_threshold_does(number, share, compare):
    one = np.float32(number)
    other = np.nextafter(one, np.float32(np.inf))
    rows = np.array([np.nextafter(one, np.float32(-np.inf)), one, other])
    rows = rows[np.isfinite(rows)]
    # Anywhere from the number to its neighbour, mostly where no float32 is.
    threshold = float(one) + share * (float(other if np.isfinite(other) else one) - float(one))
    wanted = holds(compare, rows.astype(np.float64), threshold)
    np.testing.assert_array_equal(answers_yes(threshold, compare, rows, double=False), wanted)


@settings(max_examples=50)
@given(threshold=st.floats(-1e300, 1e300), compare=st.sampled_from([Compare.AT_MOST, Compare.BELOW]))
def test_a_float64_graph_tells_neighbouring_numbers_apart(threshold, compare):
    rows = np.array([np.nextafter(threshold, -np.inf), threshold, np.nextafter(threshold, np.inf)])
    found = answers_yes(threshold, compare, rows, double=True)
    np.testing.assert_array_equal(found, holds(compare, rows, threshold))


def test_half_way_between_two_numbers_the_rounding_matters():
    # Rounded to the nearest float32, half way goes to the even one, here the larger: which then is at most it.
    one = np.nextafter(np.float32(1), np.float32(2))
    other = np.nextafter(one, np.float32(2))
    threshold = (float(one) + float(other)) / 2
    assert np.float32(threshold) == other
    rows = np.array([one, other])
    assert answers_yes(threshold, Compare.AT_MOST, rows, double=False).tolist() == [True, False]
