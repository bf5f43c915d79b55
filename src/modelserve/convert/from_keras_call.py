"""How a Keras model or TensorFlow function is called: arrays by name in, arrays by name out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from modelserve.convert.structure import Form, as_array, form, joined, named
from modelserve.errors import ConversionError, ExampleRequiredError, SignatureError
from modelserve.tensors import Array, Tensors

_ROWS = 4
# What Keras counts up by itself differs from run to run, and would make another digest each time.
COUNTED = re.compile(r"(keras_tensor|input|input_layer|unk_|args)(_*\d*)*(:\d+)?")
_NO_INPUTS = {"training", "mask"}


@dataclass(frozen=True, slots=True)
class Callee:
    """Whatever is called.

    Attributes:
        call: In inference mode.
        parameters: Names of its arguments.
        declared: What it says of its inputs (each with name, shape and dtype); empty where it says nothing.
        packs: Whether several inputs are one argument, a list or a dict of them.
    """

    kind: str
    call: Callable[..., Any]
    parameters: Sequence[str]
    declared: Sequence[Any] = ()
    packs: bool = False
    computes: str = "float32"

    @classmethod
    def of_layer(cls, layer: Any) -> Callee:
        """A Keras model or layer."""
        parameters = [name for name in _parameters(layer.call) if name not in _NO_INPUTS]
        declared = _declared(layer)
        packs = len(parameters) == 1 or len(declared) > 1
        computes = getattr(layer, "compute_dtype", None) or "float32"
        return cls(_kind(layer), partial(layer, training=False), parameters, declared, packs, computes)

    @classmethod
    def of_function(cls, function: Any) -> Callee:
        """A tf.function, or a tf.Module that is called."""
        inner = getattr(function, "python_function", function)
        declared = getattr(function, "input_signature", None) or ()
        return cls(_kind(function), function, _parameters(inner), list(tf.nest.flatten(declared)))

    @classmethod
    def of_concrete(cls, function: Any, kind: str = "") -> Callee:
        """A function of one signature, such as a SavedModel's."""
        args, kwargs = function.structured_input_signature
        specs = [*tf.nest.flatten(args), *(kwargs[name] for name in sorted(kwargs))]
        names = [*(spec.name for spec in tf.nest.flatten(args)), *sorted(kwargs)]
        call = _by_keyword(function, names) if kwargs else function
        return cls(kind or _kind(function), call, names, specs)


@dataclass(frozen=True, slots=True)
class Call:
    """One way to call it. `arguments` makes positional and keyword arguments of tensors by name."""

    callee: Callee
    tensors: Tensors
    dtypes: Mapping[str, str]
    arguments: Callable[[Mapping[str, Any]], tuple[Sequence[Any], Mapping[str, Any]]]
    constants: Mapping[str, Any]

    @classmethod
    def read(cls, callee: Callee, example: Any) -> Call:
        """The call that the example shows; where there is none, one of made-up rows.

        Raises:
            ExampleRequiredError, SignatureError: there is none, or none that fits.
        """
        shape = _form(callee, _made_up(callee) if example is None else example)
        if not shape.leaves:
            raise SignatureError(f"The example holds no tensors, only {dict(shape.constants)!r}. Give rows of inputs.")
        _refuse_text(shape.leaves)
        tensors = {name: as_array(name, leaf) for name, leaf in shape.leaves.items()}
        known = [tf.as_dtype(spec.dtype).name for spec in callee.declared]
        own = {name: array.dtype.name for name, array in tensors.items()}
        if len(known) == len(tensors):
            return cls(callee, tensors, dict(zip(tensors, known, strict=True)), shape.build, shape.constants)
        call = cls(callee, tensors, own, shape.build, shape.constants)
        narrowed = {name: callee.computes if tensors[name].dtype.kind == "f" else own[name] for name in own}
        return call if narrowed == own or call.fits() else replace(call, dtypes=narrowed)

    def run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The answer by name, from tensors by name."""
        args, kwargs = self.arguments(given)
        return named(self.callee.call(*args, **kwargs), _is_tensor, taken=self.tensors)

    def answer(self, tensors: Tensors) -> dict[str, Array]:
        """`run`, from arrays to arrays."""
        given = {name: tf.cast(tf.convert_to_tensor(tensors[name]), self.dtypes[name]) for name in self.tensors}
        return {name: np.asarray(part) for name, part in self.run(given).items()}

    def fits(self) -> bool:
        """Whether the example's own dtypes are taken."""
        try:
            self.answer(self.tensors)
        except ConversionError:
            raise
        except Exception:  # noqa: BLE001  # dtypes are refused by any exception
            return False
        return True


def _form(callee: Callee, example: Any) -> Form:
    if isinstance(example, Mapping):
        forms = {str(name): form(str(name), value) for name, value in example.items()}
        if not callee.packs and all(name in callee.parameters for name in forms):
            return joined(forms, lambda parts: ((), parts))
        return joined(forms, lambda parts: ((parts,), {}))
    values = example if isinstance(example, tuple) else (example,)
    if callee.declared and len(values) != len(callee.declared):
        raise SignatureError(
            f"{callee.kind} has {len(callee.declared)} input(s); the example has {len(values)} part(s)."
        )
    forms = {name: form(name, value) for name, value in zip(_names(callee, len(values)), values, strict=True)}
    if callee.packs and isinstance(example, tuple):
        return joined(forms, lambda parts: ((list(parts.values()),), {}))
    if len(values) > len(callee.parameters):
        raise SignatureError(
            f"{callee.kind} takes {', '.join(callee.parameters)}; the example has {len(values)} parts."
        )
    return joined(forms, lambda parts: (tuple(parts.values()), {}))


def _names(callee: Callee, count: int) -> list[str]:
    """The inputs' names: those that their author gave, else the parameters', else numbers."""
    given = [str(spec.name) for spec in callee.declared] if len(callee.declared) == count else []
    if given and not any(COUNTED.fullmatch(name) or name == "None" for name in given):
        return given
    if count == 1 or not callee.packs:
        return [*callee.parameters, *(f"input_{at}" for at in range(count))][:count]
    return [f"input_{at}" for at in range(count)]


def _made_up(callee: Callee) -> Any:
    """Rows that fit what it says of its inputs, always the same ones."""
    shapes = [
        tuple(spec.shape) if spec.shape.rank is not None else (None, None) for spec in map(_spec, callee.declared)
    ]
    if not shapes or any(None in shape[1:] or not shape for shape in shapes):
        raise ExampleRequiredError(
            f"{callee.kind} does not say what it takes. Give rows of what it was trained on: "
            "Model(model, example=X[:8])"
        )
    random = np.random.default_rng(0)
    made = tuple(
        _random(random, (shape[0] or _ROWS, *shape[1:]), tf.as_dtype(spec.dtype).name)
        for shape, spec in zip(shapes, callee.declared, strict=True)
    )
    return made[0] if len(made) == 1 else made


def _refuse_text(leaves: Mapping[str, Any]) -> None:
    for name, leaf in leaves.items():
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if dtype == tf.string or getattr(dtype, "kind", "") in {"O", "U", "S"}:
            raise ConversionError(
                f"{name!r} is text, and ONNX has no counterpart of TensorFlow's operators for text. "
                "Take the text apart before the model, and convert what takes numbers."
            )


def _spec(declared: Any) -> Any:
    return tf.TensorSpec(declared.shape, declared.dtype)


def _random(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if dtype.startswith(("float", "bfloat")):
        return random.normal(size=shape).astype("float32" if dtype == "bfloat16" else dtype)
    if dtype == "string":
        return np.full(shape, "a", object)
    return random.integers(0, 2, size=shape).astype(dtype)


def _declared(layer: Any) -> list[Any]:
    try:
        return list(tf.nest.flatten(layer.inputs or []))
    except (AttributeError, ValueError):
        return []


def _parameters(function: Any) -> list[str]:
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]


def _by_keyword(function: Any, names: Sequence[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(**dict(zip(names, args, strict=False)), **kwargs)

    return call


def _is_tensor(value: Any) -> bool:
    return tf.is_tensor(value) or isinstance(value, np.ndarray)


def _kind(source: Any) -> str:
    return f"{type(source).__module__}.{type(source).__qualname__}".removeprefix("__main__.")
