"""What a ladder does with rungs whose graphs hold, lie, or are never made; the graphs are written by hand."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelserve.bundle import Origin
from modelserve.convert.axes import Freedom, Probe
from modelserve.convert.contract import Draft
from modelserve.convert.ladder import EVERY, NARROWER, HopelessError, Rung, Scope, Source, UnfitError, climb
from modelserve.errors import ConversionError
from modelserve.tensors import Array, Tensors


def summed(tensors: Tensors) -> Mapping[str, Array]:
    return {"y": tensors["x"].sum(axis=1)}


def source() -> Source:
    example = {"x": np.arange(20, dtype=np.float32).reshape(5, 4)}
    return Source(Origin("test", "summed"), example, summed)


def graph(*nodes: onnx.NodeProto, inputs: tuple[str, ...] = ("x",), **constants: list[int]) -> onnx.ModelProto:
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b"]) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a"])],
        [helper.make_tensor(name, TensorProto.INT64, [len(sizes)], sizes) for name, sizes in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def honest(given: Probe, freedom: Freedom) -> onnx.ModelProto:
    return graph(helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0), axes=[1])


def cut_short(given: Probe, freedom: Freedom) -> onnx.ModelProto:
    """Right up to the length that it was made at: nothing shorter gives it away, and no batch does."""
    cut = helper.make_node("Slice", ["x", "start", "end", "axes"], ["cut"])
    length = given.tensors["x"].shape[1]
    return graph(
        cut, helper.make_node("ReduceSum", ["cut", "axes"], ["y"], keepdims=0), axes=[1], start=[0], end=[length]
    )


def refusing(error: Exception) -> Rung:
    def export(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        raise error

    return Rung("refusing", export)


def first(*rungs: Rung) -> Draft:
    """The first draft that is made, as `convert` asks for them."""
    for make in climb(source(), rungs):
        try:
            return make()
        except ConversionError:
            continue
    raise AssertionError("no rung held")


def test_a_graph_that_holds_keeps_every_axis() -> None:
    draft = first(Rung("honest", honest))
    assert draft.signature.inputs[0].shape == ("batch", "sequence")
    assert draft.signature.outputs[0].shape == ("batch",)
    assert draft.steps[0].settings == {"from": "test", "route": "honest", "dynamic": ["batch", "sequence"]}


def test_an_axis_at_which_a_graph_lies_is_given_up() -> None:
    draft = first(Rung("cut", cut_short))
    assert draft.signature.inputs[0].shape == ("batch", 4)
    assert draft.steps[0].settings["narrowed"] == ["sequence"]


def test_another_route_with_every_axis_comes_before_a_narrower_graph() -> None:
    rungs = Rung("cut", cut_short, (Scope.ALL,)), Rung("honest", honest), Rung("cut", cut_short, NARROWER)
    settings = first(*rungs).steps[0].settings
    assert (settings["route"], settings["tried"]) == ("honest", ["cut"])
    assert first(rungs[0], rungs[2]).steps[0].settings["narrowed"] == ["sequence"]


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        (RuntimeError("of its own"), ["refusing"]),
        (HopelessError("whatever the axes"), ["refusing"]),
        (UnfitError("not for this one"), None),
    ],
)
def test_the_lineage_tells_what_was_tried(error: Exception, tried: list[str] | None) -> None:
    assert first(refusing(error), Rung("honest", honest)).steps[0].settings.get("tried") == tried


def test_a_hopeless_route_is_asked_once() -> None:
    asked = []

    def export(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        asked.append(freedom.names)
        raise HopelessError("it depends on values")

    for make in climb(source(), [Rung("hopeless", export, EVERY), Rung("hopeless", export, NARROWER)]):
        with pytest.raises(HopelessError if len(asked) > 1 else ConversionError, match="depends on values"):
            make()
    assert asked == [("batch", "sequence")]


def test_a_graph_that_lacks_outputs_or_is_not_valid_is_refused() -> None:
    def broken(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        return graph(helper.make_node("NoSuchOperator", ["x"], ["y"]))

    def silent(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        model = honest(given, freedom)
        del model.graph.output[:]
        return model

    for export, reason in ((broken, "not valid"), (silent, "left out")):
        (make,) = climb(source(), [Rung("odd", export)])
        with pytest.raises(ConversionError, match=reason):
            make()
