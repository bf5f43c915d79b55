"""Keras models, TensorFlow functions and TFLite, live and in files: the bundle answers what they answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from asking import CLOSE, RANDOM, answers, bundle_of, numbers, step

from modelserve.convert import convert
from modelserve.errors import ConversionError, ExampleRequiredError, SignatureError, UnsupportedSourceError
from modelserve.tensors import Array

pytestmark = pytest.mark.filterwarnings("ignore")  # the framework's own deprecations are not ours to mend

long = pytest.mark.long


@pytest.fixture(scope="module")
def tf() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    return tf


class Case(NamedTuple):
    """A kind of model, an example, and inputs of other sizes."""

    title: str
    build: Callable[[Any], Any]
    example: Array
    others: list[Array]
    dynamic: list[str]


def sequential(*layers: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda keras: keras.Sequential([layer(keras.layers) for layer in layers])


def attention(keras: Any) -> Any:
    x = keras.Input((None, 8))
    return keras.Model(x, keras.layers.LayerNormalization()(keras.layers.MultiHeadAttention(2, 4)(x, x) + x))


SEQUENCES = [numbers(1, 2, 5), numbers(2, 11, 5)]
CASES = [
    Case(
        "Sequential, exact GELU",
        sequential(lambda k: k.Input((4,)), lambda k: k.Dense(8, activation="gelu"), lambda k: k.Dense(3)),
        numbers(5, 4),
        [numbers(1, 4), numbers(9, 4)],
        ["batch"],
    ),
    Case(
        "LSTM, sequences of any length",
        sequential(lambda k: k.Input((None, 5)), lambda k: k.LSTM(4), lambda k: k.Dense(2)),
        numbers(3, 7, 5),
        SEQUENCES,
        ["batch", "sequence"],
    ),
]
LONG_CASES = [
    Case(
        "Sequential that was never built",
        sequential(lambda k: k.Dense(8, activation="relu"), lambda k: k.BatchNormalization(), lambda k: k.Dense(3)),
        numbers(5, 4),
        [numbers(1, 4)],
        ["batch"],
    ),
    Case(
        "Convolutions, images of any size",
        sequential(
            lambda k: k.Input((None, None, 3)),
            lambda k: k.Conv2D(4, 3, padding="same", activation="relu"),
            lambda k: k.MaxPool2D(),
            lambda k: k.GlobalAveragePooling2D(),
            lambda k: k.Dense(2),
        ),
        numbers(3, 12, 12, 3),
        [numbers(1, 12, 12, 3), numbers(2, 17, 9, 3)],
        ["batch", "height", "width"],
    ),
    Case(
        "LSTM in both directions",
        sequential(
            lambda k: k.Input((None, 5)),
            lambda k: k.Bidirectional(k.LSTM(4, return_sequences=True)),
            lambda k: k.Dense(2),
        ),
        numbers(3, 7, 5),
        SEQUENCES,
        ["batch", "sequence"],
    ),
    Case(
        "GRU",
        sequential(lambda k: k.Input((None, 5)), lambda k: k.GRU(4), lambda k: k.Dense(2)),
        numbers(3, 7, 5),
        SEQUENCES,
        ["batch", "sequence"],
    ),
    Case(
        "Multi-head attention",
        attention,
        numbers(3, 7, 8),
        [numbers(1, 3, 8), numbers(2, 12, 8)],
        ["batch", "sequence"],
    ),
    Case("A layer alone", lambda keras: keras.layers.Dense(3), numbers(5, 4), [numbers(2, 4)], ["batch"]),
]
EVERY = [pytest.param(case, id=case.title) for case in CASES] + [
    pytest.param(case, id=case.title, marks=long) for case in LONG_CASES
]


class TestKeras:
    @pytest.mark.parametrize("case", EVERY)
    def test_answers_are_close_at_every_size_that_the_model_takes(
        self, tf: Any, case: Case, record_source: Any
    ) -> None:
        model = case.build(tf.keras)
        bundle = bundle_of(model, case.example)
        assert step(bundle)["dynamic"] == case.dynamic
        for given in (case.example, *case.others):
            (got,) = answers(bundle, given).values()
            np.testing.assert_allclose(got, np.asarray(model(given, training=False)), **CLOSE)
        record_source("Keras and TensorFlow", case.title, bundle)

    def test_a_subclassed_model_that_was_never_called_is_a_source(self, tf: Any, record_source: Any) -> None:
        class MyModel(tf.keras.Model):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.first = tf.keras.layers.Dense(8, activation="relu")
                self.drop = tf.keras.layers.Dropout(0.9)
                self.second = tf.keras.layers.Dense(3, activation="softmax")

            def call(self, rows: Any, training: bool = False) -> Any:
                return self.second(self.drop(self.first(rows), training=training))

        model, x = MyModel(), numbers(6, 4)
        bundle = bundle_of(model, x)
        assert bundle.signature.inputs[0].name == "rows"
        for rows in (1, 3, 6):
            np.testing.assert_allclose(answers(bundle, x[:rows])["output"], model.predict(x[:rows], verbose=0), **CLOSE)
        record_source("Keras and TensorFlow", "Subclassed model, never called before", bundle)

    def test_a_model_says_itself_what_it_takes(self, tf: Any) -> None:
        model = tf.keras.Sequential(
            [tf.keras.layers.Input((8, 8, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)]
        )
        x = numbers(3, 8, 8, 1)
        np.testing.assert_allclose(answers(bundle_of(model), x)["output"], model.predict(x, verbose=0), **CLOSE)

    def test_several_inputs_and_outputs_keep_their_names(self, tf: Any, record_source: Any) -> None:
        left, right = tf.keras.Input((4,), name="left"), tf.keras.Input((2,), dtype="int32", name="right")
        words = tf.keras.layers.Flatten()(tf.keras.layers.Embedding(5, 3)(right))
        outputs = {"total": tf.keras.layers.Dense(2)(left), "both": tf.keras.layers.Concatenate()([left, words])}
        model = tf.keras.Model([left, right], outputs)
        given = {"left": numbers(3, 4), "right": RANDOM.integers(0, 5, size=(3, 2)).astype(np.int32)}
        wanted = model.predict(list(given.values()), verbose=0)
        for example in (None, given, tuple(given.values())):
            bundle = bundle_of(model, example)
            assert [spec.name for spec in bundle.signature.inputs] == ["left", "right"]
            got = answers(bundle, given)
            assert got.keys() == wanted.keys()
            for name, want in wanted.items():
                np.testing.assert_allclose(got[name], want, **CLOSE)
        record_source("Keras and TensorFlow", "Functional, several inputs, a dict of outputs", bundle)

    @pytest.mark.parametrize("as_dict", [True, False])
    def test_the_arguments_of_a_subclassed_model_are_its_inputs(self, tf: Any, as_dict: bool) -> None:
        class Two(tf.keras.Model):  # type: ignore[misc]
            def call(self, left: Any, right: Any, training: bool = False) -> Any:
                return {"z": left - right, "a": left * 2, "left": left}

        given = {"left": numbers(3, 4), "right": numbers(3, 4)}
        bundle = bundle_of(Two(), given if as_dict else tuple(given.values()))
        got = answers(bundle, given)
        assert list(got) == ["z", "a", "left_output"]
        for array, want in zip(got.values(), (given["left"] - given["right"], given["left"] * 2), strict=False):
            np.testing.assert_allclose(array, want, **CLOSE)

    def test_a_dict_of_inputs_may_be_one_argument(self, tf: Any) -> None:
        class OfDict(tf.keras.Model):  # type: ignore[misc]
            def call(self, parts: Any) -> Any:
                return parts["u"] + parts["v"]

        given = {"u": numbers(3, 4), "v": numbers(3, 4)}
        np.testing.assert_allclose(answers(bundle_of(OfDict(), given), given)["output"], given["u"] + given["v"])

    def test_an_input_that_changes_nothing_stays_an_input(self, tf: Any) -> None:
        function = tf.function(lambda x, unused: x * 2)
        given = (numbers(3, 4), numbers(3, 2))
        bundle = bundle_of(function, given)
        assert [spec.name for spec in bundle.signature.inputs] == ["x", "unused"]
        np.testing.assert_array_equal(answers(bundle, given)["output"], given[0] * 2)

    def test_files_are_sources(self, tf: Any, tmp_path: Path, record_source: Any) -> None:
        model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(3)])
        model.save(tmp_path / "model.keras")
        model.save(tmp_path / "model.h5")
        model.export(tmp_path / "saved", verbose=False)
        x = numbers(3, 4)
        sources = [tmp_path / "model.keras", tmp_path / "model.h5", tmp_path / "saved"]
        for source in (*sources, tf.saved_model.load(str(tmp_path / "saved"))):
            bundle = bundle_of(source)
            (got,) = answers(bundle, x).values()
            np.testing.assert_allclose(got, model.predict(x, verbose=0), **CLOSE)
        record_source("Keras and TensorFlow", "Files: .keras, .h5, SavedModel", bundle)

    @pytest.mark.parametrize("content", [b"", b"no model at all"])
    @pytest.mark.parametrize("name", ["model.keras", "model.h5"])
    def test_a_file_that_is_no_model_is_refused(self, tf: Any, name: str, content: bytes, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnsupportedSourceError):
            convert(tmp_path / name)

    @pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5"])
    def test_a_file_with_code_in_it_is_refused_and_runs_nothing(self, tf: Any, name: str, tmp_path: Path) -> None:
        deed = str(tmp_path / "deed")  # text, which Keras can write into the file
        model = tf.keras.Sequential(
            [
                tf.keras.layers.Input((4,)),
                tf.keras.layers.Lambda(lambda x: (__import__("pathlib").Path(deed).touch(), x)[1]),
            ]
        )
        model.save(tmp_path / name)
        Path(deed).unlink()
        with pytest.raises(UnsupportedSourceError, match=r"cannot be read by Keras"):
            convert(tmp_path / name)
        assert not Path(deed).exists()

    def test_a_model_that_does_not_say_what_it_takes_needs_an_example(self, tf: Any) -> None:
        class Silent(tf.keras.Model):  # type: ignore[misc]
            def call(self, x: Any) -> Any:
                return x

        with pytest.raises(ExampleRequiredError, match=r"example=X\[:8\]"):
            convert(Silent())

    @pytest.mark.parametrize(
        ("example", "found"),
        [
            (np.ones((2, 5), np.float32), "cannot be called on the example"),
            (np.ones((0, 4), np.float32), "at least one row"),
            ((np.ones((2, 4), np.float32),) * 3, "3 part"),
            (3.0, "no tensors"),
        ],
    )
    def test_an_example_that_does_not_fit_is_answered_clearly(self, tf: Any, example: Any, found: str) -> None:
        model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(3)])
        with pytest.raises(SignatureError, match=found):
            convert(model, example)


class TestFunctions:
    def test_functions_modules_and_concrete_functions_are_sources(self, tf: Any, record_source: Any) -> None:
        weight = tf.Variable(numbers(4, 3))

        class Module(tf.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                self.weight = weight

            @tf.function
            def __call__(self, x: Any) -> Any:
                return {"y": tf.nn.relu(x @ self.weight)}

        x, module = numbers(5, 4), Module()
        function = tf.function(lambda x: tf.nn.relu(x @ weight))
        concrete = function.get_concrete_function(tf.TensorSpec((None, 4), tf.float32, name="x"))
        for source, name in ((module, "y"), (function, "output"), (concrete, "output")):
            bundle = bundle_of(source, None if source is concrete else x)
            assert [str(spec) for spec in bundle.signature.inputs] == ["float32[batch, 4]"]
            np.testing.assert_allclose(answers(bundle, x[:2])[name], np.maximum(x[:2] @ weight.numpy(), 0), **CLOSE)
            record_source("Keras and TensorFlow", type(source).__name__, bundle)

    def test_float64_rows_keep_their_dtype(self, tf: Any) -> None:
        weight = tf.Variable(numbers(4, 3))
        bundle = bundle_of(tf.function(lambda x: x @ weight), numbers(5, 4).astype(np.float64))
        assert (bundle.signature.inputs[0].dtype, bundle.signature.outputs[0].dtype) == ("float64", "float32")
        wide = bundle_of(tf.function(lambda x: x * 2), numbers(5, 4).astype(np.float64))
        assert wide.signature.outputs[0].dtype == "float64"


class TestRefused:
    def test_what_onnx_has_no_operators_for_is_refused_with_the_reason(self, tf: Any, record_source: Any) -> None:
        layers = tf.keras.layers
        split = layers.TextVectorization(output_sequence_length=3)
        split.adapt(["a b c"])
        words = tf.keras.Sequential([layers.Input((1,), dtype="string"), split])
        python = layers.Lambda(lambda x: tf.py_function(lambda a: a * 2, [x], tf.float32))
        sources = {
            "TextVectorization": (words, np.array([["a b"], ["zz"]], object), "text"),
            "py_function": (
                tf.keras.Sequential([layers.Input((4,)), python]),
                numbers(3, 4),
                "no counterpart.*EagerPyFunc",
            ),
        }
        for name, (model, example, reason) in sources.items():
            with pytest.raises(ConversionError, match=reason) as caught:
                convert(model, example)
            record_source("Keras and TensorFlow", name, refused=str(caught.value))
        with pytest.raises(ConversionError, match="text"):
            convert(words)

    @long
    @pytest.mark.parametrize("backend", ["torch", "jax"])
    def test_another_backend_whose_recurrent_layers_convert_to_lies_is_refused(
        self, backend: str, record_source: Any
    ) -> None:
        program = (
            "import numpy as np, keras\n"
            "from modelserve import errors\n"
            "from modelserve.convert import convert\n"
            "model = keras.Sequential([keras.layers.Input((7, 5)), keras.layers.LSTM(4)])\n"
            "try:\n"
            "    convert(model, np.ones((3, 7, 5), np.float32))\n"
            "except errors.UnsupportedSourceError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "KERAS_BACKEND": backend},
        )
        assert f"Keras runs on '{backend}'" in done.stdout, done.stdout + done.stderr
        record_source("Keras and TensorFlow", f"Keras on {backend}", refused=done.stdout.strip())
