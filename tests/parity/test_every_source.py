"""What holds of every source: files of no known kind, objects that nobody knows, digests, infinity."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from asking import answers, bundle_of, numbers
from torch import nn

from modelserve.convert import convert
from modelserve.errors import ConversionError, ModelServeError, UnsupportedSourceError

pytestmark = pytest.mark.filterwarnings("ignore")  # the frameworks' own deprecations are not ours to mend


class TestOnnx:
    def test_a_file_is_its_own_source_and_needs_no_example(self, tmp_path: Path) -> None:
        from onnx import TensorProto, helper

        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [value("x", TensorProto.FLOAT, ["n", 3])],
            [value("y", TensorProto.FLOAT, ["n", 3])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, tmp_path / "relu.onnx")
        for source in (model, tmp_path / "relu.onnx"):
            bundle = bundle_of(source)
            assert answers(bundle, np.array([[-1, 2, -3]], np.float32))["y"].tolist() == [[0, 2, 0]]

    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x01"])
    def test_a_file_that_is_no_model_is_refused(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ModelServeError):
            convert(tmp_path / "bad.onnx")


class TestAnySource:
    @pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "weights.bin", "missing.onnx"])
    def test_files_of_no_known_kind_are_refused(self, name: str, tmp_path: Path) -> None:
        if not name.startswith("missing"):
            (tmp_path / name).write_bytes(b"\x80\x04.")
        with pytest.raises(UnsupportedSourceError):
            convert(tmp_path / name)

    def test_an_object_that_nobody_knows_is_refused_with_what_is_known(self) -> None:
        with pytest.raises(UnsupportedSourceError, match=r"object(.|\n)*sklearn"):
            convert(object())

    def test_a_route_that_fails_leaves_nothing_behind(self, tmp_path: Path) -> None:
        class Odd(nn.Module):
            def forward(self, x: torch.Tensor) -> str:
                return "text"

        with pytest.raises(ConversionError):
            convert(Odd(), numbers(2, 2), into=tmp_path / "bundle")
        assert list(tmp_path.glob("bundle*")) == []


PROGRAM = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
from modelserve.convert import convert
x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
for noise in range(int(sys.argv[2])):
    pass
if sys.argv[1] == "torch":
    import torch
    torch.manual_seed(0)
    for _ in range(int(sys.argv[2])):
        convert(torch.nn.Linear(4, 3), x)   # what was exported before changes no name
    torch.manual_seed(0)
    source = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
elif sys.argv[1] == "keras":
    import keras
    for _ in range(int(sys.argv[2])):
        convert(keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)]))
    keras.utils.set_random_seed(0)
    source = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
else:
    from sklearn.linear_model import LogisticRegression
    source = LogisticRegression().fit(x, x[:, 0] > 0)
    assert not {"torch", "tensorflow", "keras"} & set(sys.modules)
print(convert(source, x).digest)
"""


@pytest.mark.parametrize(
    "framework",
    ["sklearn", pytest.param("torch", marks=pytest.mark.long), pytest.param("keras", marks=pytest.mark.long)],
)
@pytest.mark.long
def test_the_same_source_and_example_give_the_same_digest_in_every_process(framework: str) -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, framework, before],
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        ).stdout
        for before in ("0", "1")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_what_infinity_does_is_written_down_and_refuses_nothing() -> None:
    class Careless(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nan_to_num(x - x)

    bundle = bundle_of(Careless(), numbers(4, 3))
    tried = [report["tried"] for report in bundle.manifest.reports]
    assert {"infinity": 2} in tried
