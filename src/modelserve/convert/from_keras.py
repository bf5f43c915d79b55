"""Keras models (on TensorFlow), TensorFlow functions and SavedModels, by tf2onnx of the function that each is.

model, function, SavedModel ──► Callee ──► tf.function of named tensors ──tf2onnx──► graph ──► ladder
TFLite bytes ──► from_keras_lite
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf
import tf2onnx

from modelserve.bundle import Origin
from modelserve.convert.axes import Freedom, Probe
from modelserve.convert.contract import Draft
from modelserve.convert.from_keras_call import Call, Callee
from modelserve.convert.from_keras_files import SavedModel, open_model
from modelserve.convert.from_keras_lite import is_lite, lite_drafts
from modelserve.convert.graph import rename
from modelserve.convert.ladder import HopelessError, Rung, Source, climb
from modelserve.errors import UnsupportedSourceError
from modelserve.tensors import Array, Tensors

_OPSET = 18


class KerasConverter:
    """Models and layers of Keras, functions and modules of TensorFlow."""

    roots = ("keras", "tensorflow", "tf_keras")

    def accepts(self, source: Any) -> bool:
        if isinstance(source, bytes):
            return is_lite(source)
        functions = tf.types.experimental.PolymorphicFunction | tf.types.experimental.ConcreteFunction
        is_module = isinstance(source, tf.Module) and callable(source)
        return (
            is_module
            or isinstance(source, tf.keras.layers.Layer | SavedModel | functions)
            or hasattr(source, "signatures")
        )

    def open_file(self, path: Path) -> Any:
        return open_model(path)

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        if isinstance(source, bytes):
            return lite_drafts(source, example)
        call = Call.read(_callee(source), example)

        def reference(tensors: Tensors) -> Mapping[str, Array]:
            return call.answer(tensors)

        versions = {"tensorflow": tf.__version__, "keras": version("keras"), "tf2onnx": version("tf2onnx")}
        constants = {name: repr(value) for name, value in call.constants.items() if value is not None}
        known = Source(
            Origin("keras", call.callee.kind, versions),
            call.tensors,
            reference,
            channels_last=True,
            settings={"constants": constants},
        )
        return climb(known, [Rung("function", partial(_export, call))])


converter = KerasConverter()


def _callee(source: Any) -> Callee:
    if isinstance(source, tf.keras.layers.Layer):
        if tf.keras.backend.backend() != "tensorflow":
            raise UnsupportedSourceError(
                f"Keras runs on {tf.keras.backend.backend()!r} here, whose models convert to wrong answers in part. "
                "Set KERAS_BACKEND=tensorflow before importing keras."
            )
        return Callee.of_layer(source)
    if isinstance(source, SavedModel):
        return Callee.of_concrete(source.function, "tensorflow.SavedModel")
    if isinstance(source, tf.types.experimental.ConcreteFunction):
        return Callee.of_concrete(source)
    if callable(source) and not hasattr(source, "signatures"):
        return Callee.of_function(source)
    return Callee.of_concrete(SavedModel(source).function, "tensorflow.SavedModel")


def _export(call: Call, given: Probe, freedom: Freedom) -> onnx.ModelProto:
    names = list(call.tensors)
    free = {place for axis in freedom.axes for place in axis.places}
    specs = tuple(
        tf.TensorSpec(
            [None if (name, at) in free else size for at, size in enumerate(given.tensors[name].shape)],
            call.dtypes[name],
            name=f"in_{number}",
        )
        for number, name in enumerate(names)
    )

    @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def function(*tensors: Any) -> Any:
        return list(call.run(dict(zip(names, tensors, strict=True))).values())

    model: onnx.ModelProto = tf2onnx.convert.from_function(function, input_signature=specs, opset=_OPSET)[0]
    # tf2onnx writes some inputs as "name:0", and leaves out those that change nothing.
    wanted = {f"in_{number}": name for number, name in enumerate(names)}
    rename(model, {value.name: wanted[value.name.removesuffix(":0")] for value in model.graph.input})
    _write_erfc(model)
    _refuse_unknown(model)
    return model


def _write_erfc(model: onnx.ModelProto) -> None:
    """Write Erfc, which exact GELU uses and ONNX lacks, as 1 - Erf."""
    nodes = []
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        erf, one = f"erfc_{index}_erf", f"erfc_{index}_one"
        nodes.append(onnx.helper.make_node("Erf", list(node.input), [erf]))
        nodes.append(onnx.helper.make_node("CastLike", ["erfc_one", erf], [one]))
        nodes.append(onnx.helper.make_node("Sub", [one, erf], list(node.output)))
    if len(nodes) > len(model.graph.node):
        model.graph.initializer.append(onnx.helper.make_tensor("erfc_one", onnx.TensorProto.FLOAT, [], [1.0]))
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def _refuse_unknown(model: onnx.ModelProto) -> None:
    """tf2onnx leaves operators as they are that it does not know."""
    odd = sorted({node.op_type for node in model.graph.node if not node.domain and not onnx.defs.has(node.op_type)})
    if odd:
        raise HopelessError(f"ONNX has no counterpart of TensorFlow's {', '.join(odd)}.")
