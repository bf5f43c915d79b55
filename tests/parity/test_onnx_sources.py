"""ONNX files and models in memory: of every opset and layout, of any size, whole or refused with the reason."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from asking import answer
from onnx import TensorProto, helper, numpy_helper

from modelserve.bundle import Bundle, Step
from modelserve.convert import convert
from modelserve.errors import ConversionError, ModelServeError, SignatureError, UnsupportedSourceError
from modelserve.tensors import Array

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


def value(name: str, shape: Any, dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Any = None, *, opset: int = 18, shape: Any = ("n", 4), weights: Any = None, **imports: int
) -> onnx.ModelProto:
    """`x` float32[n, 3] -> `y`: relu(x @ weights)."""
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["sums"]), helper.make_node("Relu", ["sums"], ["y"])],
        "graph",
        [value("x", ["n", 3])],
        [value("y", shape)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {"w": WEIGHTS}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, one) for name, one in imports.items())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def wanted(rows: Array = X) -> Array:
    return np.maximum(rows @ WEIGHTS, 0)


class TestSources:
    @pytest.mark.parametrize("opset", [*range(7, 25)])
    def test_every_opset_from_7_on_is_taken_as_it_is(self, opset: int, record_source: Any) -> None:
        bundle = convert(model(opset=opset))
        record_source("ONNX", "file or ModelProto, opset 7 and newer", bundle)
        np.testing.assert_allclose(answer(bundle, X), wanted(), rtol=1e-5)
        assert bundle.manifest.reports[0]["versions"]["opset"] == f"ai.onnx {opset}"

    @pytest.mark.parametrize("opset", [1, 5])
    def test_an_opset_that_cannot_be_run_any_more_is_rewritten(self, opset: int, record_source: Any) -> None:
        bundle = convert(model([helper.make_node("Relu", ["x"], ["y"])], opset=opset, shape=("n", 3)))
        record_source("ONNX", "older opsets", bundle, limits="compared with onnx's reference implementation")
        assert bundle.manifest.lineage[-1] == Step("repair", {"opset": 21})
        np.testing.assert_array_equal(answer(bundle, X), np.maximum(X, 0))

    def test_a_path_a_file_with_weights_beside_it_and_a_proto_are_one_bundle(self, tmp_path: Path) -> None:
        onnx.save(model(), tmp_path / "whole.onnx")
        beside = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
        onnx.save(model(), tmp_path / "beside.onnx", **beside)
        sources = (model(), tmp_path / "whole.onnx", str(tmp_path / "whole.onnx"), tmp_path / "beside.onnx")
        bundles = [convert(source) for source in sources]
        assert len({bundle.digest for bundle in bundles}) == 1
        np.testing.assert_allclose(answer(bundles[-1], X), wanted(), rtol=1e-5)

    def test_the_source_stays_as_it_was(self) -> None:
        source = model()
        before = source.SerializeToString(deterministic=True)
        convert(source)
        assert source.SerializeToString(deterministic=True) == before

    def test_weights_that_are_inputs_too_as_old_files_have_it(self) -> None:
        source = model(opset=8)
        source.ir_version = 3
        source.graph.input.append(value("w", [3, 4]))
        bundle = convert(source)
        assert [spec.name for spec in bundle.signature.inputs] == ["x"]
        np.testing.assert_allclose(answer(bundle, X), wanted(), rtol=1e-5)

    def test_maps_of_scikit_learns_older_files_are_tensors(self, record_source: Any) -> None:
        zipmap = helper.make_node(
            "ZipMap", ["sums"], ["y"], domain="ai.onnx.ml", classlabels_strings=["a", "b", "c", "d"]
        )
        source = model([helper.make_node("MatMul", ["x", "w"], ["sums"]), zipmap], **{"ai.onnx.ml": 1})
        source.graph.output[0].CopyFrom(
            onnx.ValueInfoProto(
                name="y",
                type=helper.make_sequence_type_proto(
                    helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
                ),
            )
        )
        bundle = convert(source)
        record_source("ONNX", "scikit-learn's files with maps as outputs", bundle, limits="maps become tensors")
        assert str(bundle.signature.outputs[0]) == "float32[batch, 4]"
        np.testing.assert_allclose(answer(bundle, X), X @ WEIGHTS, rtol=1e-5)

    def test_functions_and_branches_inside_the_graph_are_kept(self) -> None:
        positive = helper.make_graph([helper.make_node("Relu", ["x"], ["a"])], "yes", [], [value("a", ["n", 3])])
        negative = helper.make_graph([helper.make_node("Neg", ["x"], ["b"])], "no", [], [value("b", ["n", 3])])
        nodes = [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["sum", "zero"], ["above"]),
            helper.make_node("If", ["above"], ["y"], then_branch=positive, else_branch=negative),
        ]
        bundle = convert(model(nodes, shape=("n", 3), weights={"zero": np.float32(0)}))
        np.testing.assert_array_equal(answer(bundle, -np.abs(X)), np.abs(X))
        assert not bundle.rows_independent

    def test_axes_of_any_size_are_tried_at_several_sizes(self) -> None:
        source = model([helper.make_node("Relu", ["x"], ["y"])], shape=("n", "seq", 3))
        source.graph.input[0].CopyFrom(value("x", ["n", "seq", 3]))
        bundle = convert(source)
        assert bundle.signature.inputs[0].shape == ("batch", "seq", 3)
        assert "seq of 16" in bundle.manifest.reports[0]["tried"]


class TestRefusals:
    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x01", b"\x08\x08" * 400])
    def test_a_file_that_is_no_model(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(UnsupportedSourceError, match="ONNX model"):
            convert(tmp_path / "bad.onnx")

    def test_a_file_cut_off_in_the_middle(self, tmp_path: Path) -> None:
        whole = model().SerializeToString()
        (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ModelServeError):
            convert(tmp_path / "cut.onnx")

    @pytest.mark.parametrize("spoil", ["missing", "cut"])
    def test_weights_that_are_missing_or_cut_off(self, spoil: str, tmp_path: Path) -> None:
        beside = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
        onnx.save(model(), tmp_path / "beside.onnx", **beside)
        if spoil == "missing":
            (tmp_path / "w.data").unlink()
        else:
            (tmp_path / "w.data").write_bytes(b"\0\0")
        with pytest.raises(UnsupportedSourceError, match=r"w\.data|ONNX model"):
            convert(tmp_path / "beside.onnx")

    @pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link"])
    def test_weights_outside_of_the_models_folder_are_never_read(self, location: str, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        (tmp_path / "secret").write_bytes(bytes(48))
        (folder / "link").symlink_to(tmp_path / "secret")
        source = model()
        tensor = source.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        (folder / "m.onnx").write_bytes(source.SerializeToString())
        with pytest.raises(UnsupportedSourceError):
            convert(folder / "m.onnx")

    def test_a_proto_without_its_weights_says_how_to_give_them(self, tmp_path: Path) -> None:
        beside = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
        onnx.save(model(), tmp_path / "beside.onnx", **beside)
        bare = onnx.load(tmp_path / "beside.onnx", load_external_data=False)
        with pytest.raises(UnsupportedSourceError, match=r"Give the path|cannot be read|not valid"):
            convert(bare)

    def test_operators_of_nobody_say_so(self, record_source: Any) -> None:
        source = model([helper.make_node("Frobnicate", ["x"], ["y"], domain="acme")], shape=("n", 3), acme=1)
        with pytest.raises(ConversionError, match=r"Frobnicate|acme") as caught:
            convert(source)
        record_source("ONNX", "operators of a domain that onnxruntime lacks", refused=str(caught.value))

    def test_an_example_that_does_not_fit_says_what_does(self) -> None:
        with pytest.raises(SignatureError, match=r"float32\[batch, 3\], got shape \(5, 4\)"):
            convert(model(), np.zeros((5, 4), np.float32))

    def test_a_model_without_inputs_has_nothing_to_be_asked(self) -> None:
        graph = helper.make_graph(
            [helper.make_node("Identity", ["w"], ["y"])], "g", [], [value("y", [3, 4])],
            [numpy_helper.from_array(WEIGHTS, "w")],
        )  # fmt: skip
        with pytest.raises(UnsupportedSourceError, match="no inputs"):
            convert(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


LARGE = """
import resource, sys
from pathlib import Path
import numpy as np, onnx
from onnx import TensorProto, helper
from modelserve.convert import convert
from modelserve.session import Session

folder, rows, width = Path(sys.argv[1]), 1 << 16, 64
parts = 9  # tables of rows x width x 64 floats: together above 2 GiB
value, make = helper.make_tensor_value_info, helper.make_node
random, nodes, tensors = np.random.default_rng(0), [], []
with (folder / "w.data").open("wb") as file:
    for part in range(parts):
        table = onnx.TensorProto(name=f"t{part}", dims=[rows, width * 16], data_type=TensorProto.FLOAT)
        table.data_location = TensorProto.EXTERNAL
        for key, said in (("location", "w.data"), ("offset", file.tell()), ("length", rows * width * 64)):
            table.external_data.add(key=key, value=str(said))
        file.write(random.random((rows, width * 16), np.float32).tobytes())
        tensors.append(table)
        nodes.append(make("Gather", [f"t{part}", "index"], [f"rows{part}"]))
nodes.append(make("Sum", [f"rows{part}" for part in range(parts)], ["y"]))
graph = helper.make_graph(
    nodes, "g", [value("index", TensorProto.INT64, ["n"])], [value("y", TensorProto.FLOAT, ["n", width * 16])], tensors
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
(folder / "m.onnx").write_bytes(model.SerializeToString())
assert (folder / "w.data").stat().st_size > 1 << 31
bundle = convert(folder / "m.onnx", np.array([0, 7, rows - 1]), into=folder / "bundle")
got = Session(bundle, settings={"session.disable_prepacking": "1"}).run({"index": np.array([7])})["y"]
flat = np.memmap(folder / "w.data", np.float32, "r").reshape(parts, rows, width * 16)
np.testing.assert_allclose(got[0], flat[:, 7].sum(axis=0), rtol=1e-5)
print(bundle.weights_path.stat().st_size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_model_above_two_gigabytes_is_converted_with_its_weights_beside_it(
    tmp_path: Path, record_source: Any
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stderr
    weights, memory_kb = map(int, done.stdout.split())
    assert weights > 1 << 31
    record_source("ONNX", "above 2 GB, weights beside the file", Bundle.open(tmp_path / "bundle", verify=False))
    # The weights once in memory, and pages of the files that are mapped; never a second copy and a third.
    assert memory_kb * 1024 < 5 * weights, f"{memory_kb / 1e6:.1f} GB for {weights / 1e9:.1f} GB of weights"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < memory_kb + (4 << 20)
