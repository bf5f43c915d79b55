"""Keras models and TensorFlow functions, live and in files: the bundle answers what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelserve.bundle import Bundle
from modelserve.convert import convert
from modelserve.errors import ExampleRequiredError
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


def numbers(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


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
