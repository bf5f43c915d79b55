"""Networks of PyTorch and Keras, and files of them: the bundle answers what the network answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from modelserve.bundle import Bundle
from modelserve.convert import convert
from modelserve.errors import ConversionError, ExampleRequiredError, ModelServeError, UnsupportedSourceError
from modelserve.session import Session
from modelserve.tensors import Array

pytestmark = pytest.mark.filterwarnings("ignore")  # the frameworks' own deprecations are not ours to mend

RANDOM = np.random.default_rng(0)
# float32 sums of some hundred terms, taken in another order than the framework takes them.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def bundle_of(source: Any, example: Any = None) -> Bundle:
    made = convert(source, example)
    assert isinstance(made, Bundle)
    return made


def answers(bundle: Bundle, inputs: Any) -> dict[str, Array]:
    names = [spec.name for spec in bundle.signature.outputs]
    return Session(bundle).run(bundle.signature.check(inputs).tensors, names)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recur = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        states, _ = self.recur(x)
        return {"last": self.head(states[:, -1]), "states": states}


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class TwoInputs(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left + right, (left * right).sum(dim=1)


def numbers(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


TORCH: list[tuple[nn.Module, tuple[Array, ...]]] = [
    (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), (numbers(5, 8),)),
    (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        (numbers(5, 3, 12, 12),),
    ),
    (Recurrent(), (numbers(5, 7, 5),)),
    (Branching(), (numbers(5, 4),)),
    (TwoInputs(), (numbers(5, 4), numbers(5, 4))),
    (nn.Sequential(nn.Dropout(0.9), nn.Linear(8, 2)), (numbers(5, 8),)),
]


class TestTorch:
    @pytest.mark.parametrize(("module", "example"), TORCH, ids=lambda value: type(value).__name__)
    def test_answers_are_close_for_any_number_of_rows(self, module: nn.Module, example: tuple[Array, ...]) -> None:
        module.train()
        bundle = bundle_of(module, example if len(example) > 1 else example[0])
        assert module.training, "the user's module is as it was"
        for rows in (1, 3, 9):
            given = tuple(np.resize(array, (rows, *array.shape[1:])) for array in example)
            module.eval()
            with torch.no_grad():
                wanted = module(*map(torch.from_numpy, given))
            got = answers(bundle, given if len(given) > 1 else given[0])
            parts = wanted.values() if isinstance(wanted, dict) else wanted if isinstance(wanted, tuple) else [wanted]
            for array, want in zip(got.values(), parts, strict=True):
                assert array.dtype == np.float32
                np.testing.assert_allclose(array, want.numpy(), **CLOSE)

    def test_names_and_dtypes_are_the_modules(self) -> None:
        signature = bundle_of(Recurrent(), numbers(4, 7, 5)).signature
        assert [spec.name for spec in signature.inputs] == ["x"]
        assert [spec.name for spec in signature.outputs] == ["last", "states"]
        assert signature.inputs[0].shape == ("batch", 7, 5)

    def test_float64_rows_are_taken_without_being_narrowed_by_the_user(self) -> None:
        module = nn.Linear(4, 2)
        bundle = bundle_of(module, numbers(4, 4).astype(np.float64))
        assert bundle.signature.inputs[0].dtype == "float64"

    def test_a_branch_that_a_trace_would_freeze_is_kept(self) -> None:
        bundle = bundle_of(Branching(), numbers(5, 4))
        low = -np.ones((2, 4), np.float32)
        np.testing.assert_array_equal(answers(bundle, low)["output"], low - 1)
        assert not bundle.rows_independent

    def test_a_missing_example_is_asked_for(self) -> None:
        with pytest.raises(ExampleRequiredError, match=r"example=X\[:8\]"):
            convert(nn.Linear(2, 2))

    def test_a_scripted_file_is_a_source(self, tmp_path: Path) -> None:
        module = nn.Linear(4, 2).eval()
        torch.jit.save(torch.jit.script(module), tmp_path / "scripted.pt")
        x = numbers(3, 4)
        with torch.no_grad():
            wanted = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(answers(bundle_of(tmp_path / "scripted.pt", x), x)["output"], wanted, **CLOSE)

    def test_an_exported_program_and_its_file_are_sources_that_need_no_example(self, tmp_path: Path) -> None:
        module = nn.Linear(4, 2).eval()
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=shapes)
        torch.export.save(program, tmp_path / "program.pt2")
        x = numbers(3, 4)
        with torch.no_grad():
            wanted = module(torch.from_numpy(x)).numpy()
        for source in (program, tmp_path / "program.pt2"):
            np.testing.assert_allclose(answers(bundle_of(source), x)["output"], wanted, **CLOSE)

    def test_a_pickled_module_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        torch.save(nn.Linear(2, 2), tmp_path / "pickled.pt")
        with pytest.raises(UnsupportedSourceError, match=r"pickle(.|\n)*Load it yourself"):
            convert(tmp_path / "pickled.pt", numbers(2, 2))

    def test_a_hostile_program_file_runs_nothing(self, tmp_path: Path) -> None:
        import zipfile

        program = torch.export.export(nn.Linear(2, 2), (torch.zeros(2, 2),))
        torch.export.save(program, tmp_path / "good.pt2")

        class Deed:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / "deed",)

        torch.save(Deed(), tmp_path / "deed.pt")
        with (
            zipfile.ZipFile(tmp_path / "good.pt2") as good,
            zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad,
        ):
            for name in good.namelist():
                is_sample = "/data/sample_inputs/" in name
                bad.writestr(name, (tmp_path / "deed.pt").read_bytes() if is_sample else good.read(name))
        with pytest.raises(UnsupportedSourceError):
            convert(tmp_path / "bad.pt2")
        assert not (tmp_path / "deed").exists()


class TestKeras:
    @pytest.fixture(scope="class")
    def tf(self) -> Any:
        import tensorflow as tf

        return tf

    def test_a_subclassed_model_that_was_never_called_is_a_source(self, tf: Any) -> None:
        class MyModel(tf.keras.Model):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.first = tf.keras.layers.Dense(8, activation="relu")
                self.second = tf.keras.layers.Dense(3, activation="softmax")

            def call(self, rows: Any) -> Any:
                return self.second(self.first(rows))

        model, x = MyModel(), numbers(6, 4)
        bundle = bundle_of(model, x)
        assert bundle.signature.inputs[0].name == "rows"
        for rows in (1, 3, 6):
            np.testing.assert_allclose(answers(bundle, x[:rows])["output"], model.predict(x[:rows], verbose=0), **CLOSE)

    def test_sequential_recurrent_and_exact_gelu_models_say_themselves_what_they_take(self, tf: Any) -> None:
        layers = tf.keras.layers
        for stack in (
            [layers.Input((4,)), layers.Dense(3, activation="gelu")],
            [layers.Input((5, 4)), layers.LSTM(3), layers.Dense(2)],
            [layers.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.MaxPool2D(), layers.Flatten(), layers.Dense(2)],
        ):
            model = tf.keras.Sequential(stack)
            x = numbers(3, *model.input_shape[1:])
            np.testing.assert_allclose(answers(bundle_of(model), x)["output"], model.predict(x, verbose=0), **CLOSE)

    def test_several_inputs_and_outputs_keep_their_names(self, tf: Any) -> None:
        left, right = tf.keras.Input((4,), name="left"), tf.keras.Input((2,), name="right")
        outputs = {"total": tf.keras.layers.Dense(2)(left), "both": tf.keras.layers.Concatenate()([left, right])}
        model = tf.keras.Model([left, right], outputs)
        given = {"left": numbers(3, 4), "right": numbers(3, 2)}
        bundle = bundle_of(model)
        assert [spec.name for spec in bundle.signature.inputs] == ["left", "right"]
        got, wanted = answers(bundle, given), model.predict(list(given.values()), verbose=0)
        assert got.keys() == wanted.keys()
        for name, want in wanted.items():
            np.testing.assert_allclose(got[name], want, **CLOSE)

    def test_keras_files_and_saved_models_are_sources(self, tf: Any, tmp_path: Path) -> None:
        model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(3)])
        model.save(tmp_path / "model.keras")
        model.export(tmp_path / "saved", verbose=False)
        x = numbers(3, 4)
        for path in (tmp_path / "model.keras", tmp_path / "saved"):
            got = next(iter(answers(bundle_of(path), x).values()))
            np.testing.assert_allclose(got, model.predict(x, verbose=0), **CLOSE)

    def test_a_model_that_does_not_say_what_it_takes_needs_an_example(self, tf: Any) -> None:
        class Silent(tf.keras.Model):  # type: ignore[misc]
            def call(self, x: Any) -> Any:
                return x

        with pytest.raises(ExampleRequiredError):
            convert(Silent())


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
