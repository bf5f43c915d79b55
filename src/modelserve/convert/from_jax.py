"""Jitted JAX functions and Flax modules, by jax2onnx of the function that each is.

    jax.jit(f), nnx.Module, bound linen.Module ──► function of named arrays ──jax2onnx──► graph ──► ladder

A plain Python function is nobody's model, whatever it computes with: only what was jitted is taken for JAX's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax2onnx
import numpy as np
import onnx

from modelserve.bundle import Origin
from modelserve.convert.axes import Freedom, Probe
from modelserve.convert.contract import Draft
from modelserve.convert.ladder import Rung, Source, climb
from modelserve.convert.structure import Form, as_array, form, joined, named
from modelserve.errors import ExampleRequiredError, SignatureError, UnsupportedSourceError
from modelserve.tensors import Array, Tensors

_OPSET = 21


class JaxConverter:
    """Functions of `jax.jit`, modules of Flax: nnx, and linen with its variables bound."""

    roots = ("jax", "jaxlib", "flax")

    def accepts(self, source: Any) -> bool:
        return isinstance(source, jax.stages.Wrapped) or _is_flax(source)

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        call = _Call.read(_function(source), _kind(source), example)

        def reference(tensors: Tensors) -> Mapping[str, Array]:
            return {name: np.asarray(part) for name, part in call.run(tensors).items()}

        versions = {"jax": jax.__version__, "jax2onnx": version("jax2onnx")}
        versions |= {"flax": version("flax")} if _is_flax(source) else {}
        constants = {name: repr(value) for name, value in call.constants.items() if value is not None}
        known = Source(
            Origin("jax", _kind(source), versions),
            call.tensors,
            reference,
            channels_last=True,
            settings={"constants": constants},
        )
        return climb(known, [Rung("jaxpr", partial(_export, call))])


converter = JaxConverter()


@dataclass(frozen=True, slots=True)
class _Call:
    """How the function is called. `dtypes` are those in which JAX computes; it narrows 64 bits unless told not to."""

    function: Callable[..., Any]
    tensors: Tensors
    arguments: Callable[[Mapping[str, Any]], tuple[Sequence[Any], Mapping[str, Any]]]
    constants: Mapping[str, Any]

    @classmethod
    def read(cls, function: Callable[..., Any], kind: str, example: Any) -> _Call:
        if example is None:
            raise ExampleRequiredError(
                f"{kind} does not say what it takes. Give rows of what it was trained on: "
                "Model(function, example=X[:8])"
            )
        shape = _form(function, example)
        if not shape.leaves:
            raise SignatureError(f"The example holds no arrays, only {dict(shape.constants)!r}. Give rows of inputs.")
        tensors = {name: as_array(name, leaf) for name, leaf in shape.leaves.items()}
        return cls(function, tensors, shape.build, shape.constants)

    def run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The answer by name, from arrays by name."""
        args, kwargs = self.arguments({name: jax.numpy.asarray(given[name]) for name in self.tensors})
        return named(self.function(*args, **kwargs), _is_array, taken=self.tensors)


def _export(call: _Call, given: Probe, freedom: Freedom) -> onnx.ModelProto:
    sizes = {place: f"axis_{number}" for number, axis in enumerate(freedom.axes) for place in axis.places}
    specs = [
        jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]  # JAX's
            tuple(sizes.get((name, at), size) for at, size in enumerate(array.shape)),
            jax.dtypes.canonicalize_dtype(array.dtype),
        )
        for name, array in given.tensors.items()
    ]

    def function(*arrays: Any) -> list[Any]:
        return list(call.run(dict(zip(call.tensors, arrays, strict=True))).values())

    model: onnx.ModelProto = jax2onnx.to_onnx(
        function,
        specs,
        opset=_OPSET,
        enable_double_precision=bool(jax.config.jax_enable_x64),  # type: ignore[attr-defined]  # made at run time
    )
    return model


def _function(source: Any) -> Callable[..., Any]:
    """What is called: in inference mode, where it has modes; the source itself is left as it is."""
    function: Callable[..., Any] = source
    if _is_flax(source):
        from flax import linen, nnx

        if isinstance(source, nnx.Module):
            function = nnx.view(source, raise_if_not_found=False, deterministic=True, use_running_average=True)
        elif isinstance(source, linen.Module) and source.scope is None:
            raise UnsupportedSourceError(
                f"{_kind(source)} has no variables in it. Bind those that it was trained to: "
                "Model(module.bind(variables), example=X[:8])"
            )
    return function


def _form(function: Callable[..., Any], example: Any) -> Form:
    found = inspect.signature(function).parameters.values()
    parameters = [p.name for p in found if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    if isinstance(example, Mapping):
        forms = {str(name): form(str(name), value) for name, value in example.items()}
        if all(name in parameters for name in forms):
            return joined(forms, lambda parts: ((), parts))
        return joined(forms, lambda parts: ((parts,), {}))
    values = example if isinstance(example, tuple) else (example,)
    more = any(p.kind is p.VAR_POSITIONAL for p in found)
    if len(values) > len(parameters) and not more:
        raise SignatureError(f"It takes {', '.join(parameters)}; the example has {len(values)} parts.")
    names = [*parameters, *(f"input_{at}" for at in range(len(parameters), len(values)))][: len(values)]
    forms = {name: form(name, value) for name, value in zip(names, values, strict=True)}
    return joined(forms, lambda parts: (tuple(parts.values()), {}))


def _is_flax(source: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "flax" for kind in type(source).__mro__) and callable(source)


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _kind(source: Any) -> str:
    kind = type(source) if _is_flax(source) else source
    name = getattr(kind, "__qualname__", type(source).__qualname__)
    return f"{getattr(kind, '__module__', '')}.{name}".removeprefix("__main__.")
