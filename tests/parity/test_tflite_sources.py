"""TFLite models, bytes and files: the bundle answers what TensorFlow's interpreter answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from asking import CLOSE, RANDOM, answers, bundle_of, numbers

from modelserve.convert import convert
from modelserve.errors import SignatureError, UnsupportedSourceError
from modelserve.tensors import Array

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),
]  # the framework's own deprecations are not ours to mend

long = pytest.mark.long


@pytest.fixture(scope="module")
def tf() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    return tf


class TestLite:
    @pytest.fixture(scope="class")
    def model(self, tf: Any) -> Any:
        layers = tf.keras.layers
        return tf.keras.Sequential(
            [layers.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
        )

    @staticmethod
    def lite(tf: Any, model: Any, rows: Array | None = None, *, whole: bool = False) -> bytes:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if rows is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([row[None]] for row in rows)
        if whole:
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        content = converter.convert()
        assert isinstance(content, bytes)
        return content

    @staticmethod
    def interpreted(tf: Any, content: bytes, rows: Array) -> Array:
        interpreter = tf.lite.Interpreter(model_content=content)
        end, start = interpreter.get_output_details()[0], interpreter.get_input_details()[0]
        interpreter.resize_tensor_input(start["index"], rows.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(start["index"], rows)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(end["index"]))

    def test_bytes_and_files_of_floats_are_sources(
        self, tf: Any, model: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], record_source: Any
    ) -> None:
        content, x = self.lite(tf, model), numbers(5, 8, 8, 3)
        (tmp_path / "model.tflite").write_bytes(content)
        capfd.readouterr()
        for source in (content, tmp_path / "model.tflite"):
            bundle = bundle_of(source)
            np.testing.assert_allclose(answers(bundle, x)["output"], model.predict(x, verbose=0), **CLOSE)
        assert capfd.readouterr() == ("", "")
        assert [str(spec) for spec in bundle.signature.inputs] == ["float32[batch, 8, 8, 3]"]
        record_source("Keras and TensorFlow", "TFLite of floats, bytes or file", bundle)

    @pytest.mark.parametrize("whole", [True, False])
    def test_eight_bit_models_answer_as_the_interpreter_does(
        self, tf: Any, model: Any, whole: bool, record_source: Any
    ) -> None:
        rows = numbers(100, 8, 8, 3)
        content = self.lite(tf, model, rows, whole=whole)
        x = RANDOM.integers(-128, 128, size=(64, 8, 8, 3)).astype(np.int8) if whole else rows
        bundle = bundle_of(content, x)
        # Signed ones overflow, without a word, on processors that lack a dot product of eight-bit numbers.
        graph = onnx.load_model(bundle.model_path).graph
        weights = [tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1]
        assert onnx.TensorProto.UINT8 in weights
        assert onnx.TensorProto.INT8 not in weights
        wanted = self.interpreted(tf, content, x)
        steps = 1.0 if whole else tf.lite.Interpreter(model_content=content).get_tensor_details()
        if not whole:
            steps = max(detail["quantization"][0] for detail in steps)
        error = np.abs(answers(bundle, x)["output"].astype(float) - wanted.astype(float)).max()
        # Each of the two roundings to the grid may fall to the other side.
        assert error <= 2 * steps
        kind = "integers throughout" if whole else "floats at the ends"
        record_source("Keras and TensorFlow", f"TFLite of eight bits, {kind}", bundle)

    def test_a_shape_that_the_model_does_not_say_is_never_given_to_the_interpreter(self, tf: Any, model: Any) -> None:
        with pytest.raises(SignatureError, match="must be of shape"):
            convert(self.lite(tf, model), numbers(2, 9, 9, 3))

    @pytest.mark.parametrize("content", [b"", b"text", b"\x1c\0\0\0TFL3" + b"\xff" * 64])
    def test_bytes_that_are_no_model_are_refused(self, tf: Any, content: bytes) -> None:
        with pytest.raises(UnsupportedSourceError):
            convert(content)
