"""Keras models (on TensorFlow), by tf2onnx of the function that the model is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

from modelserve.bundle import Origin, Step
from modelserve.convert.contract import Draft
from modelserve.convert.graph import declare, rename
from modelserve.convert.quiet import quiet
from modelserve.errors import ConversionError, ExampleRequiredError, SignatureError, UnsupportedSourceError
from modelserve.tensors import Array, Signature, Tensors, TensorSpec

_OPSET = 18
_ROWS = 4
_COUNTED = re.compile(r"(keras_tensor|input|input_layer|unk_|args)(_*\d*)*(:\d+)?")
_NO_INPUTS = {"training", "mask"}


class KerasConverter:
    """Sequential, functional and subclassed models."""

    roots = ("keras", "tensorflow", "tf_keras")

    def accepts(self, source: Any) -> bool:
        return isinstance(source, tf.keras.Model | SavedModel)

    def open_file(self, path: Path) -> Any:
        """The model in a .keras or .h5 file (one with code of its own is refused by Keras), or a SavedModel folder."""
        if path.is_dir():
            return SavedModel.open(path)
        if path.suffix.lower() not in {".keras", ".h5"}:
            raise UnsupportedSourceError(f"{str(path)!r} cannot be read. Give a .keras file or the live model.")
        try:
            return tf.keras.models.load_model(path, compile=False, safe_mode=True)
        except (ValueError, TypeError, OSError) as error:
            raise UnsupportedSourceError(f"{str(path)!r} cannot be read by Keras: {error}") from error

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        if tf.keras.backend.backend() != "tensorflow":
            raise UnsupportedSourceError(
                f"Keras runs on {tf.keras.backend.backend()!r} here, whose models convert to wrong answers in part. "
                "Set KERAS_BACKEND=tensorflow before importing keras."
            )
        call = _Call.read(source, example)
        return [lambda: _draft(source, call)]


converter = KerasConverter()


class SavedModel:
    """The serving signature of a SavedModel folder, called as a Keras model is."""

    __module__ = "tensorflow"

    def __init__(self, loaded: Any, function: Any) -> None:
        self._loaded = loaded  # its variables live as long as it does
        self._function = function
        _, self._specs = function.structured_input_signature
        self.input_names = sorted(self._specs)
        self.inputs = [self._specs[name] for name in self.input_names]

    @classmethod
    def open(cls, path: Path) -> SavedModel:
        """The folder's default signature."""
        loaded = tf.saved_model.load(str(path))
        found = loaded.signatures.get("serving_default") or next(iter(loaded.signatures.values()), None)
        if found is None:
            raise UnsupportedSourceError(
                f"{str(path)!r} has no serving signature. Save it with model.export(...), or give the live model."
            )
        return cls(loaded, found)

    def __call__(self, given: Any, *, training: bool) -> Any:  # as Keras calls a model
        values = given if isinstance(given, list | tuple) else [given]
        return self._function(**dict(zip(self.input_names, values, strict=True)))

    def call(self, *inputs: Any) -> Any:
        """As Keras names it; its parameters are not the model's."""
        return self(inputs, training=False)


@dataclass(frozen=True, slots=True)
class _Call:
    """How the model is called. `packed` puts tensors, in order, into the form that it takes."""

    tensors: Tensors
    packed: Callable[[Sequence[Any]], Any]
    dtypes: Mapping[str, Any]

    @classmethod
    def read(cls, model: Any, example: Any) -> _Call:
        declared = _declared(model)
        if example is None:
            example = _made_up(model, declared)
        if isinstance(example, Mapping):
            names = [str(name) for name in example]
            values = list(example.values())
            packed: Callable[[Sequence[Any]], Any] = partial(_by_name, names)
        elif isinstance(example, tuple):
            names = _names(model, declared, len(example))
            values = list(example)
            packed = list
        else:
            names, values = _names(model, declared, 1), [example]
            packed = _first
        tensors = {name: _as_array(name, value) for name, value in zip(names, values, strict=True)}
        computes = getattr(model, "compute_dtype", None) or "float32"
        known = [tensor.dtype for tensor in declared] if len(declared) == len(names) else [None] * len(names)
        dtypes = {
            name: dtype or _inside(array, computes) for dtype, (name, array) in zip(known, tensors.items(), strict=True)
        }
        return cls(tensors, packed, dtypes)

    def given(self, tensors: Tensors) -> list[Any]:
        return [tf.cast(tf.convert_to_tensor(tensors[name]), self.dtypes[name]) for name in self.tensors]


def _draft(model: Any, call: _Call) -> Draft:
    try:
        answers = _named(model(call.packed(call.given(call.tensors)), training=False))
    except ConversionError:
        raise
    except Exception as error:
        raise SignatureError(f"The model cannot be called on the example: {str(error)[:500]}") from error
    specs = tuple(
        tf.TensorSpec((None, *array.shape[1:]), call.dtypes[name], name=f"in_{index}")
        for index, (name, array) in enumerate(call.tensors.items())
    )
    proto = _export(model, call, specs)
    names = {f"in_{index}": name for index, name in enumerate(call.tensors)}
    graph_outputs = [value.name for value in proto.graph.output]
    if len(graph_outputs) != len(answers):
        raise ConversionError(f"tf2onnx gave {len(graph_outputs)} outputs for {len(answers)}.")
    names |= dict(zip(graph_outputs, answers, strict=True))
    rename(proto, {_graph_name(proto, old): new for old, new in names.items()})
    inputs = tuple(TensorSpec(name, a.dtype.name, ("batch", *a.shape[1:])) for name, a in call.tensors.items())
    rows = next(iter(call.tensors.values())).shape[0]
    outputs = tuple(
        TensorSpec(name, a.dtype.name, ("batch", *a.shape[1:]) if a.shape[:1] == (rows,) else a.shape)
        for name, a in answers.items()
    )
    declare(proto, inputs, outputs)

    def reference(tensors: Tensors) -> Mapping[str, Array]:
        return _named(model(call.packed(call.given(tensors)), training=False))

    return Draft(
        model=proto,
        signature=Signature(inputs, outputs),
        example=call.tensors,
        reference=reference,
        origin=Origin(
            "keras",
            f"{type(model).__module__}.{type(model).__qualname__}".removeprefix("__main__."),
            {"tensorflow": tf.__version__, "keras": version("keras"), "tf2onnx": version("tf2onnx")},
        ),
        steps=(Step("convert", {"from": "keras", "route": "function"}),),
    )


def _export(model: Any, call: _Call, specs: tuple[Any, ...]) -> onnx.ModelProto:
    @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def function(*given: Any) -> Any:
        return list(_flat(model(call.packed(given), training=False)).values())

    try:
        with quiet():
            proto, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=_OPSET)
    except Exception as error:
        # tf2onnx raises ValueError, KeyError and whatever a defect of its raises.
        raise ConversionError(f"tf2onnx refuses the model: {str(error)[:500]}") from error
    _write_erfc(proto)
    converted: onnx.ModelProto = proto
    return converted


def _write_erfc(model: onnx.ModelProto) -> None:
    """Write Erfc, which exact GELU uses and ONNX lacks, as 1 - Erf."""
    nodes = []
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        one, erf = f"erfc_{index}_one", f"erfc_{index}_erf"
        kind = onnx.TensorProto.FLOAT
        nodes.append(onnx.helper.make_node("Erf", list(node.input), [erf]))
        nodes.append(onnx.helper.make_node("Sub", [one, erf], list(node.output)))
        model.graph.initializer.append(onnx.helper.make_tensor(one, kind, [], [1.0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _declared(model: Any) -> list[Any]:
    try:
        return list(tf.nest.flatten(model.inputs or []))
    except (AttributeError, ValueError):
        return []


def _names(model: Any, declared: Sequence[Any], count: int) -> list[str]:
    """The inputs' names: those that their author gave, else the parameters of `call`, else numbers.

    What Keras itself counts up (keras_tensor_3) differs from run to run, and would make another digest each time.
    """
    given = [str(tensor.name) for tensor in declared] if len(declared) == count else []
    if given and not any(_COUNTED.fullmatch(name) for name in given):
        return given
    parameters = [name for name in list(inspect.signature(type(model).call).parameters)[1:] if name not in _NO_INPUTS]
    if len(parameters) == count:
        return parameters
    return ["inputs"] if count == 1 else [f"input_{index}" for index in range(count)]


def _made_up(model: Any, declared: Sequence[Any]) -> Any:
    """Rows that fit a model which says what it takes, always the same ones."""
    if not declared or any(None in tensor.shape[1:] for tensor in declared):
        raise ExampleRequiredError(
            f"{type(model).__name__} does not say what it takes. Give rows of what it was trained on: "
            "Model(model, example=X[:8])"
        )
    random = np.random.default_rng(0)
    made = tuple(_random(random, (_ROWS, *tensor.shape[1:]), tf.as_dtype(tensor.dtype).name) for tensor in declared)
    return made[0] if len(made) == 1 else made


def _random(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    is_float = dtype.startswith(("float", "bfloat"))
    return random.normal(size=shape).astype(dtype) if is_float else random.integers(0, 2, size=shape).astype(dtype)


def _as_array(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim == 0 or array.shape[0] == 0:
        raise SignatureError(
            f"The example for {name!r} must be numbers with at least one row, got {array.dtype} of shape {array.shape}."
        )
    return np.ascontiguousarray(array)


def _inside(array: Array, computes: str) -> Any:
    return computes if array.dtype.kind == "f" else array.dtype.name


def _by_name(names: Sequence[str], given: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, given, strict=True))


def _first(given: Sequence[Any]) -> Any:
    return given[0]


def _flat(answer: Any) -> dict[str, Any]:
    if isinstance(answer, Mapping):
        return {str(name): answer[name] for name in sorted(answer)}
    if isinstance(answer, tuple | list):
        return {f"output_{index}": part for index, part in enumerate(answer)}
    return {"output": answer}


def _named(answer: Any) -> dict[str, Array]:
    return {name: np.asarray(tensor) for name, tensor in _flat(answer).items()}


def _graph_name(model: onnx.ModelProto, wanted: str) -> str:
    """tf2onnx writes some inputs as "name:0"."""
    names = {value.name for value in (*model.graph.input, *model.graph.output)}
    return wanted if wanted in names else f"{wanted}:0"
