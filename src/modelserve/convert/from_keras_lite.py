"""TFLite models, by tf2onnx, compared with TensorFlow's own interpreter of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx.numpy_helper import from_array, to_array

from modelserve.bundle import Origin
from modelserve.convert.axes import Freedom, Probe
from modelserve.convert.contract import Draft, Tolerance
from modelserve.convert.from_keras_call import COUNTED
from modelserve.convert.graph import rename
from modelserve.convert.ladder import Rung, Source, climb
from modelserve.convert.quiet import quiet
from modelserve.convert.structure import as_array
from modelserve.errors import SignatureError, UnsupportedSourceError
from modelserve.tensors import Array, Tensors

_OPSET = 18
_ROWS = 4


def is_lite(content: bytes) -> bool:
    """Whether these are the bytes of a TFLite file."""
    return content[4:8] == b"TFL3"


def lite_drafts(content: bytes, example: Any) -> Sequence[Callable[[], Draft]]:
    """The drafts of a TFLite model.

    Raises:
        UnsupportedSourceError: the bytes cannot be read.
        SignatureError: the example does not fit.
    """
    lite = _Lite(content)
    given = lite.example(example)
    source = Source(
        Origin("tflite", "tensorflow.lite.Model", {"tensorflow": tf.__version__, "tf2onnx": version("tf2onnx")}),
        given,
        lite.answer,
        channels_last=True,
        tolerance=lite.tolerance(given),
    )
    return climb(source, [Rung("tflite", partial(_export, lite))])


class _Lite:
    """The interpreter, and what it says of its ends."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        try:
            with quiet():
                self._interpreter = _silent(tf.lite.Interpreter)(model_content=content)
        except (ValueError, RuntimeError) as error:
            raise UnsupportedSourceError(f"These bytes cannot be read as a TFLite model: {error}") from error
        self.inputs = _by_name(self._interpreter.get_input_details())
        self.outputs = _by_name(self._interpreter.get_output_details(), taken=self.inputs)

    def example(self, example: Any) -> Tensors:
        """The example by name; made up where there is none, always the same one."""
        if example is None:
            random = np.random.default_rng(0)
            return {name: _random(random, detail) for name, detail in self.inputs.items()}
        if not isinstance(example, Mapping):
            values = example if isinstance(example, tuple) else (example,)
            example = dict(zip(self.inputs, values, strict=False)) if len(values) == len(self.inputs) else {}
        if set(example) != set(self.inputs):
            raise SignatureError(f"The model takes {', '.join(self.inputs)}. Give all of them, by name or in order.")
        return {name: as_array(name, example[name]) for name in self.inputs}

    def answer(self, tensors: Tensors) -> Mapping[str, Array]:
        run = self._interpreter
        for name, detail in self.inputs.items():
            _refuse_shape(name, detail["shape_signature"], tensors[name].shape)
            run.resize_tensor_input(detail["index"], tensors[name].shape)
        run.allocate_tensors()
        for name, detail in self.inputs.items():
            run.set_tensor(detail["index"], tensors[name].astype(detail["dtype"]))
        run.invoke()
        return {name: np.array(run.get_tensor(detail["index"])) for name, detail in self.outputs.items()}

    def tolerance(self, example: Tensors) -> Tolerance | None:
        """Two steps of the coarsest grid where values are held in eight bits, since roundings differ by one each."""
        coarse = [detail["quantization"][0] for detail in self._interpreter.get_tensor_details()]
        coarse = [scale for scale in coarse if scale]
        if not coarse:
            return None
        steps = [2.0 if detail["quantization"][0] else 2.0 * max(coarse) for detail in self.outputs.values()]
        return Tolerance(max(steps), 0.0)


def _refuse_shape(name: str, wanted: Sequence[int], got: Sequence[int]) -> None:
    """The interpreter itself takes any shape, and reads past the end of what it got."""
    if len(wanted) != len(got) or any(want not in {-1, size} for want, size in zip(wanted, got, strict=True)):
        shape = ", ".join("any" if size == -1 else str(size) for size in wanted)
        raise SignatureError(f"Input {name!r} must be of shape ({shape}), got {tuple(got)}.")


def _export(lite: _Lite, given: Probe, freedom: Freedom) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(lite.content)
        interpreter = tf.lite.Interpreter
        tf.lite.Interpreter = _silent(interpreter)  # tf2onnx makes one, too
        try:
            model: onnx.ModelProto = tf2onnx.convert.from_tflite(str(path), opset=_OPSET)[0]
        finally:
            tf.lite.Interpreter = interpreter
    names = {detail["name"]: name for name, detail in lite.inputs.items()}
    rename(model, {value.name: names[value.name] for value in model.graph.input if value.name in names})
    _shift_weights(model)
    return model


def _shift_weights(model: onnx.ModelProto) -> None:
    """Hold eight-bit weights without a sign, shifted by 128: the same numbers, exact on every processor.

    Where a processor has no dot product of eight-bit numbers (before AVX-VNNI), onnxruntime adds products of signed
    weights in 16 bits, which overflow without a word.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        weight = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is None or weight.data_type != onnx.TensorProto.INT8:
            continue
        scale = constants.get(node.input[1])
        zero = constants[node.input[2]] if len(node.input) > 2 else None
        offset = (
            np.zeros(to_array(scale).shape if scale is not None else (), np.int8) if zero is None else to_array(zero)
        )
        names = [f"weight_{number}_shifted", f"zero_{number}_shifted"]
        for name, signed in zip(names, (to_array(weight), offset), strict=True):
            model.graph.initializer.append(from_array((signed.astype(np.int16) + 128).astype(np.uint8), name))
        node.input[:] = [names[0], node.input[1], names[1]]
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _silent(interpreter: Any) -> Callable[..., Any]:
    """Without delegates, which tell the terminal that they exist."""
    without = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return partial(interpreter, experimental_op_resolver_type=without)


def _by_name(details: Sequence[Mapping[str, Any]], taken: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Details by readable names: what stands between "serving_default_" and ":0"."""
    found: dict[str, Any] = {}
    for number, detail in enumerate(details):
        name = str(detail["name"]).removeprefix("serving_default_").partition(":")[0]
        kind = "output" if taken is not None else "input"
        is_odd = not name.isidentifier() or COUNTED.fullmatch(name) or name.startswith("Stateful")
        is_odd = is_odd or name in found or name in (taken or ())
        found[(kind if len(details) == 1 else f"{kind}_{number}") if is_odd else name] = detail
    return found


def _random(random: np.random.Generator, detail: Mapping[str, Any]) -> Array:
    shape = [size if size > 0 else _ROWS for size in detail["shape_signature"]]
    if np.dtype(detail["dtype"]).kind == "f":
        return random.normal(size=shape).astype(detail["dtype"])
    return random.integers(0, 100, size=shape).astype(detail["dtype"])
