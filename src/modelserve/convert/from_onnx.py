"""ONNX files and models in memory: checked, and taken as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelserve.bundle import Origin, Step
from modelserve.convert.contract import Draft
from modelserve.convert.graph import declare, describe
from modelserve.errors import BundleError, ConversionError, UnsupportedSourceError
from modelserve.session import load
from modelserve.tensors import Array, Signature, Tensors, TensorSpec

_ROWS = 4
_UNKNOWN_AXIS = 8


class OnnxConverter:
    """What is ONNX already."""

    roots = ("onnx",)

    def accepts(self, source: Any) -> bool:
        return isinstance(source, onnx.ModelProto | Path)

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        return [lambda: _draft(source, example)]


converter = OnnxConverter()


def _draft(source: onnx.ModelProto | Path, example: Any) -> Draft:
    model, original = _read(source)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(describe(value) for value in model.graph.input if value.name not in weights)
    outputs = _outputs(model, original)
    signature = Signature(inputs, outputs)
    tensors = _made_up(signature) if example is None else signature.check(example).tensors
    declare(model, inputs, outputs)
    names = [spec.name for spec in outputs]

    def reference(tensors: Tensors) -> Mapping[str, Array]:
        return dict(zip(names, map(np.asarray, original.run(names, dict(tensors))), strict=True))

    return Draft(
        model=model,
        signature=signature,
        example=tensors,
        reference=reference,
        origin=Origin("onnx", source.stem if isinstance(source, Path) else "onnx-model", {"onnx": onnx.__version__}),
        steps=(Step("convert", {"from": "onnx"}),),
    )


def _read(source: onnx.ModelProto | Path) -> tuple[onnx.ModelProto, Any]:
    """The model, and a session of it as it came."""
    try:
        if isinstance(source, Path):
            model = onnx.load(source)
            onnx.checker.check_model(str(source))
            return model, load(source)
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        onnx.checker.check_model(copy)
        return copy, load(copy.SerializeToString())
    except (onnx.checker.ValidationError, BundleError) as error:
        raise UnsupportedSourceError(f"This ONNX model is not valid: {error}") from error
    except Exception as error:
        raise UnsupportedSourceError(f"{str(source)[:200]!r} cannot be read as an ONNX model: {error}") from error


def _outputs(model: onnx.ModelProto, session: Any) -> tuple[TensorSpec, ...]:
    """The outputs; shapes that the file does not declare are taken from what onnxruntime inferred."""
    inferred = {value.name: value.shape for value in session.get_outputs()}
    specs = []
    for value in model.graph.output:
        if not value.type.HasField("tensor_type"):
            raise UnsupportedSourceError(
                f"Output {value.name!r} is a sequence or a map, which cannot be served. "
                "For scikit-learn models convert with zipmap=False, or give the live model."
            )
        if not value.type.tensor_type.HasField("shape"):
            shape = [size if isinstance(size, int) else -1 for size in inferred[value.name] or []]
            if not shape:
                raise ConversionError(f"Output {value.name!r} declares no shape. Infer shapes before saving the file.")
            for size in shape:
                axis = value.type.tensor_type.shape.dim.add()
                if size > 0:
                    axis.dim_value = size
        specs.append(describe(value))
    return tuple(specs)


def _made_up(signature: Signature) -> dict[str, Array]:
    """Inputs that fit the declarations, always the same ones: an ONNX file says what it takes."""
    random = np.random.default_rng(0)
    sizes: dict[str, int] = {"batch": _ROWS}
    tensors = {}
    for spec in signature.inputs:
        shape = [size if isinstance(size, int) else sizes.setdefault(size, _UNKNOWN_AXIS) for size in spec.shape]
        if spec.dtype == "string":
            tensors[spec.name] = np.full(shape, "text", object)
        elif spec.dtype.startswith("float"):
            tensors[spec.name] = random.normal(size=shape).astype(spec.dtype)
        else:
            tensors[spec.name] = random.integers(0, 2, size=shape).astype(spec.dtype)
    return tensors
