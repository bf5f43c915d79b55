"""Whatever a converter says, its graph is believed only where it answers as the source does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelserve.bundle import Bundle, Origin, Step
from modelserve.convert import Draft, Tolerance, convert, routes
from modelserve.convert.certify import certified
from modelserve.convert.detect import find_converter
from modelserve.convert.graph import element_type
from modelserve.errors import ConversionError, SignatureError, UnfaithfulError
from modelserve.session import Session
from modelserve.tensors import Array, Signature, TensorSpec

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
SEQUENCE = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)

Source = Callable[[Array], Any]


def value(spec: TensorSpec) -> Any:
    return helper.make_tensor_value_info(spec.name, element_type(spec.dtype), list(spec.shape))


def draft(
    nodes: list[Any],
    source: Source,
    example: Array = X,
    *,
    takes: tuple[int | str, ...] = ("batch", 3),
    gives: tuple[int | str, ...] | None = None,
    weights: Mapping[str, Array] | None = None,
    opset: int = 18,
    label: bool = False,
) -> Draft:
    """A draft of a graph from `x` to `y` (and `label`), which claims to be `source`."""
    specs = [TensorSpec("y", "float32", takes if gives is None else gives)]
    specs += [TensorSpec("label", "int64", ("batch",))] if label else []
    inputs = (TensorSpec("x", example.dtype.name, takes),)
    graph = helper.make_graph(
        nodes,
        "graph",
        [value(spec) for spec in inputs],
        [value(spec) for spec in specs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)

    def reference(tensors: Mapping[str, Array]) -> Mapping[str, Array]:
        answer = source(tensors["x"])
        return answer if isinstance(answer, dict) else {"y": answer}

    return Draft(
        model=model,
        signature=Signature(inputs, tuple(specs), "label" if label else "y"),
        example={"x": example},
        reference=reference,
        origin=Origin("test", "Test"),
        steps=(Step("convert", {"from": "test"}),),
        decisions=frozenset({"label"}) if label else frozenset(),
    )


def believed(made: Draft, tolerance: Tolerance | None = None) -> Bundle:
    return certified(made, tolerance, None, dict)


def node(kind: str, *inputs: str, to: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [to], **attributes)


DOUBLE = [node("Add", "x", "x")]


class TestWhatIsCaught:
    def test_a_faithful_draft_is_a_bundle_with_its_certificate(self) -> None:
        report = believed(draft(DOUBLE, lambda x: x * 2)).manifest.reports[0]
        assert report["is_faithful"]
        assert set(report["tried"]) == {
            "example", "batches of 1", "batches of 2", "batches of 7", "shuffled", "boundary"
        }  # fmt: skip
        assert report["rows"] == sum(report["tried"].values())
        assert report["versions"]["opset"] == "ai.onnx 18"
        assert report["seconds"] > 0
        assert len(report["samples_digest"]) == 64

    def test_the_worst_row_is_named_with_its_values(self) -> None:
        def off(x: Array) -> Array:
            return x * 2 + np.where(x[:, :1] > 1e3, 5, 0).astype(x.dtype) + 1e-3 * (x[:, :1] > 0)

        example = np.array([[1, 2, 3], [2000, 1, 1], [-1, -1, -1]], np.float32)
        with pytest.raises(UnfaithfulError, match=r"'y' differs by 5 in row \d+ of those from .*x = \[\d{4}"):
            believed(draft(DOUBLE, off, example))

    def test_changed_decisions_are_told_before_changed_numbers(self) -> None:
        nodes = [*DOUBLE, node("ArgMax", "y", to="label", axis=1, keepdims=0)]

        def source(x: Array) -> dict[str, Array]:
            return {"label": x.argmin(axis=1), "y": x * 3}

        said = r"of \d+ decisions of 'label' change \(95 % interval \d+\.\d% to \d+\.\d%; .*instead of.*x = \["
        with pytest.raises(UnfaithfulError, match=said):
            believed(draft(nodes, source, label=True))

    def test_a_graph_that_kept_the_examples_answer_is_caught(self) -> None:
        constant = [node("Identity", "answer")]
        with pytest.raises(UnfaithfulError):
            believed(draft(constant, lambda x: x * 2, weights={"answer": X * 2}))

    def test_so_it_is_where_the_model_takes_one_shape_only(self) -> None:
        constant = [node("Identity", "answer")]
        with pytest.raises(UnfaithfulError, match=r"shuffled|boundary"):
            believed(draft(constant, lambda x: x * 2, takes=(5, 3), weights={"answer": X * 2}))

    def test_an_axis_that_only_seems_to_be_of_any_size_is_caught(self) -> None:
        first_six = [node("Slice", "x", "from", "to", "axis", to="cut"), node("ReduceSum", "cut", "axis", keepdims=0)]
        weights = {"from": np.array([0]), "to": np.array([6]), "axis": np.array([1])}
        made = draft(
            first_six, lambda x: x.sum(axis=1), SEQUENCE, takes=("batch", "seq", 3), gives=("batch", 3), weights=weights
        )
        with pytest.raises(UnfaithfulError, match=r"seq of (8|12)"):
            believed(made)

    def test_a_wrong_shape_and_a_graph_that_fails_are_caught(self) -> None:
        with pytest.raises(UnfaithfulError, match=r"shape \(\d+, 3\) instead of"):
            believed(draft(DOUBLE, lambda x: x[:, :2] * 2))
        fixed = [node("Reshape", "x", "shape")]
        with pytest.raises(UnfaithfulError, match="cannot answer the rows from 'batches of"):
            believed(draft(fixed, lambda x: x, weights={"shape": np.array([5, 3])}))

    def test_what_is_wrong_for_nan_only_refuses_nan(self) -> None:
        zeroed = [node("Max", "x", "low")]
        made = draft(zeroed, lambda x: np.nan_to_num(np.maximum(x, -9)), weights={"low": np.float32([-9.0])})
        bundle = believed(made)
        assert not bundle.signature.inputs[0].allows_nan
        assert any("NaN in 'x'" in report["tried"] for report in bundle.manifest.reports)

    def test_a_graph_that_is_not_valid_and_a_source_that_refuses_its_example_are_errors(self) -> None:
        with pytest.raises(ConversionError, match="not valid"):
            believed(draft([node("NoSuchThing", "x")], lambda x: x))
        with pytest.raises(ConversionError, match="refuses the example itself: ZeroDivisionError"):
            believed(draft(DOUBLE, lambda x: x / (1 // 0)))


class TestAxes:
    def test_an_axis_of_any_size_is_tried_at_several_and_kept(self) -> None:
        bundle = believed(draft(DOUBLE, lambda x: x * 2, SEQUENCE, takes=("batch", "seq", 3)))
        assert bundle.signature.inputs[0].shape == ("batch", "seq", 3)
        tried = bundle.manifest.reports[0]["tried"]
        assert {name for name in tried if name.startswith("seq")} == {"seq of 1", "seq of 3", "seq of 8", "seq of 12"}

    def test_one_that_the_source_refuses_is_narrowed(self) -> None:
        def picky(x: Array) -> Array:
            if x.shape[1] != 6:
                raise ValueError("six, please")
            return x * 2

        bundle = believed(draft(DOUBLE, picky, SEQUENCE, takes=("batch", "seq", 3)))
        assert bundle.signature.inputs[0].shape == ("batch", 6, 3)
        assert bundle.signature.outputs[0].shape == ("batch", 6, 3)

    def test_axes_that_go_together_are_tried_together_and_get_one_name(self) -> None:
        square = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)

        def traced(x: Array) -> Array:
            if x.shape[1] != x.shape[2]:
                raise ValueError("square, please")
            return x * 2

        bundle = believed(draft(DOUBLE, traced, square, takes=("batch", "height", "width")))
        assert bundle.signature.inputs[0].shape == ("batch", "height", "height")

    def test_a_batch_that_the_source_takes_in_one_size_only_is_fixed(self) -> None:
        def five(x: Array) -> Array:
            if x.shape[0] != 5:
                raise ValueError("five, please")
            return x * 2

        bundle = believed(draft(DOUBLE, five))
        assert bundle.signature.inputs[0].shape == (5, 3)
        assert not bundle.rows_independent


class Route:
    """A converter that takes whatever it is given, by the routes it was made with."""

    roots = ("test",)

    def __init__(self, *drafts: Callable[[], Draft]) -> None:
        self._drafts = drafts

    def accepts(self, source: Any) -> bool:
        return True

    def drafts(self, source: Any, example: Any) -> Any:
        return self._drafts


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bundle]:
    """Convert something by these routes."""

    def convert_by(*drafts: Callable[[], Draft], **settings: Any) -> Bundle:
        monkeypatch.setattr(routes, "find_converter", lambda source, example: Route(*drafts))
        return convert(object(), X, **settings)

    return convert_by


def wrong() -> Draft:
    return draft(DOUBLE, lambda x: x * 3)


class TestRoutes:
    def test_the_first_faithful_route_is_taken_and_the_refused_ones_are_told(self, by: Any) -> None:
        bundle = by(wrong, lambda: draft(DOUBLE, lambda x: x * 2))
        (refused,) = bundle.manifest.reports[0]["conversion"]["refused"]
        assert refused["route"] == "route 1"
        assert "differs by" in refused["reason"]

    def test_where_none_is_all_are_told_and_equal_reasons_once(self, by: Any, tmp_path: Path) -> None:
        with pytest.raises(UnfaithfulError, match=r"route 1, route 1 with opset \d+(.|\n)*tolerance=") as caught:
            by(wrong, into=tmp_path / "bundle")
        assert str(caught.value).count("differs by") == 1
        assert not list(tmp_path.glob("*bundle*"))

    def test_a_graph_in_an_opset_that_cannot_be_loaded_is_rewritten_in_another(self, by: Any) -> None:
        # onnxruntime has no kernel for Relu as opset 5 defined it.
        bundle = by(lambda: draft([node("Relu", "x")], lambda x: np.maximum(x, 0), opset=5))
        assert bundle.manifest.lineage[-1] == Step("repair", {"opset": 21})
        assert bundle.manifest.reports[0]["versions"]["opset"] == "ai.onnx 21"

    def test_the_first_step_that_differs_is_named(self, by: Any) -> None:
        nodes = [node("Add", "x", "x", to="first"), node("Mul", "first", "three", to="second"), node("Relu", "second")]

        def unlike() -> Draft:
            made = draft(nodes, lambda x: np.maximum(x * 8, 0), weights={"three": np.float32([3.0])})
            steps = [("double", 2), ("times four", 8)]
            return replace(made, stages=lambda given: [(name, given["x"] * by) for name, by in steps])

        with pytest.raises(UnfaithfulError, match="The first step that differs is 'times four'"):
            by(unlike)

    def test_stages_that_fail_leave_the_refusal_as_it_is(self, by: Any) -> None:
        with pytest.raises(UnfaithfulError, match="differs by"):
            by(lambda: replace(wrong(), stages=lambda given: 1 / 0))


NAMES = Signature((TensorSpec("rows", "float64", ("n", 3)),), (TensorSpec("doubled", "float64", ("n", 3)),))


class TestSignatures:
    def right(self) -> Draft:
        return draft(DOUBLE, lambda x: {"y": x * 2} if x.dtype == np.float32 else 1 / 0)

    def test_names_and_dtypes_can_be_said_and_are_tried_like_the_rest(self, by: Any) -> None:
        bundle = by(self.right, signature=NAMES)
        assert (str(bundle.signature.inputs[0]), bundle.signature.inputs[0].name) == ("float64[n, 3]", "rows")
        answer = Session(bundle).run(bundle.signature.check(X.astype(np.float64)).tensors)["doubled"]
        assert answer.dtype == np.float64
        np.testing.assert_allclose(answer, X * 2, rtol=1e-6)

    def test_an_axis_can_be_fixed_or_be_of_any_size(self, by: Any) -> None:
        fixed = Signature((TensorSpec("x", "float32", (5, 3)),), (TensorSpec("y", "float32", (5, 3)),))
        assert not by(self.right, signature=fixed).signature.is_batched
        wide = Signature((TensorSpec("x", "float32", ("n", "w")),), (TensorSpec("y", "float32", ("n", "w")),))
        assert by(self.right, signature=wide).signature.inputs[0].shape == ("n", "w")

    def test_an_axis_said_to_be_of_any_size_that_is_not_is_caught(self, by: Any) -> None:
        wide = Signature((TensorSpec("x", "float32", ("n", "w")),), (TensorSpec("y", "float32", ("n", "w")),))
        cut = [node("Mul", "x", "twos")]
        made = lambda: draft(cut, lambda x: x * 2, weights={"twos": np.full(3, 2, np.float32)})  # noqa: E731
        with pytest.raises(UnfaithfulError, match="'w of"):
            by(made, signature=wide)

    def test_nan_can_be_refused(self, by: Any) -> None:
        sure = Signature((replace(self.right().signature.inputs[0], allows_nan=False),), self.right().signature.outputs)
        assert by(self.right).signature.inputs[0].allows_nan
        assert not by(self.right, signature=sure).signature.inputs[0].allows_nan

    @pytest.mark.parametrize(
        ("takes", "said"),
        [
            ((TensorSpec("x", "float32", ("n",)),), "the model has x: float32"),
            ((TensorSpec("x", "string", ("n", 3)),), "the model has x: float32"),
            ((TensorSpec("x", "float32", ("n", 3)), TensorSpec("z", "float32", ("n",))), "the model has x: float32"),
            ((TensorSpec("x", "float32", (4, 3)),), r"the example has shape \(5, 3\)"),
            ((TensorSpec("x", "uint8", ("n", 3)),), "cannot hold the example's float32"),
        ],
    )
    def test_one_that_does_not_fit_is_refused(self, by: Any, takes: Any, said: str) -> None:
        with pytest.raises(SignatureError, match=said):
            by(self.right, signature=Signature(takes, self.right().signature.outputs))


def spoiled(source: Any, example: Array, weight: Array) -> Draft:
    """The source's first draft, with one of its weights changed."""
    made = find_converter(source).drafts(source, example)[0]()
    (found,) = [one for one in made.model.graph.initializer if np.array_equal(numpy_helper.to_array(one), weight)]
    found.raw_data = (numpy_helper.to_array(found) + 1).tobytes()
    return made


def test_a_pipeline_names_its_first_step_that_differs() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    source = make_pipeline(StandardScaler(), PCA(2), Ridge()).fit(rows, rows[:, 0])
    made = spoiled(source, rows, source.steps[1][1].components_.T.astype(np.float32))
    with pytest.raises(UnfaithfulError, match=r"first step that differs is 'pca \(PCA\)'"):
        believed(made)


def test_a_torch_module_names_its_first_submodule_that_differs() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    made = spoiled(module, X, module[2].bias.detach().numpy())
    with pytest.raises(UnfaithfulError, match=r"first step that differs is '2 \(Linear\)'"):
        believed(made)
    assert module.training
    assert not module[2]._forward_hooks
