"""ONNX files and models in memory: checked, and taken as they are, however large.

A file says what it takes, so that no example is needed. The graph as it came answers for the source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, helper

from modelserve.bundle import Origin, Step
from modelserve.bundle.weights import weight_bytes
from modelserve.convert.contract import Draft
from modelserve.convert.graph import declare, describe
from modelserve.convert.opened import AS_THEY_LIE, ON_DISK_FROM_BYTES, opened
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
    model = _read(source)
    steps = [Step("convert", {"from": "onnx"})]
    if _drop_zipmaps(model):
        steps.append(Step("repair", {"maps": "tensors"}))
    held = contextlib.ExitStack()
    original = held.enter_context(_original(source, model, is_changed=len(steps) > 1))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(describe(value) for value in model.graph.input if value.name not in weights)
    if not inputs:
        raise UnsupportedSourceError("This ONNX model takes no inputs, so there is nothing to ask it.")
    outputs = _outputs(model, original)
    signature = Signature(inputs, outputs)
    tensors = _made_up(signature) if example is None else signature.check(example).tensors
    declare(model, inputs, outputs)
    names = [spec.name for spec in outputs]

    def reference(tensors: Tensors, _held: contextlib.ExitStack = held) -> Mapping[str, Array]:
        # Held on to: a large original lies in files for as long as it is asked.
        return dict(zip(names, map(np.asarray, original.run(names, dict(tensors))), strict=True))

    return Draft(
        model=model,
        signature=signature,
        example=tensors,
        reference=reference,
        origin=Origin("onnx", source.stem if isinstance(source, Path) else "onnx-model", {"onnx": onnx.__version__}),
        steps=tuple(steps),
        decisions=frozenset(spec.name for spec in outputs if spec.dtype == "string"),
    )


def _read(source: onnx.ModelProto | Path) -> onnx.ModelProto:
    """The model with its weights, of its own.

    Raises:
        UnsupportedSourceError: it is not valid, or a file of it is missing.
    """
    try:
        if isinstance(source, Path):
            onnx.checker.check_model(str(source))
            return onnx.load(source)
        if weight_bytes(source) < ON_DISK_FROM_BYTES:
            onnx.checker.check_model(source)
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
    except onnx.checker.ValidationError as error:
        raise UnsupportedSourceError(f"This ONNX model is not valid: {error}") from error
    except Exception as error:  # protobuf and the file system raise what they like
        where = repr(str(source)) if isinstance(source, Path) else "The ModelProto"
        raise UnsupportedSourceError(f"{where} cannot be read as an ONNX model: {error}") from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in copy.graph.initializer):
        raise UnsupportedSourceError(
            "This ModelProto's weights lie in files that it only points to. Give the path of its .onnx file, or load "
            "them: onnx.load(path)."
        )
    return copy


@contextlib.contextmanager
def _original(source: onnx.ModelProto | Path, model: onnx.ModelProto, *, is_changed: bool) -> Iterator[Any]:
    """What answers for the model as it came."""
    with contextlib.ExitStack() as held:
        try:
            if isinstance(source, Path) and not is_changed:
                settings = AS_THEY_LIE if weight_bytes(model) >= ON_DISK_FROM_BYTES else {}
                session = load(source, settings=settings)
            else:
                session = held.enter_context(opened(model))
        except (BundleError, ConversionError) as error:
            session = _Evaluator(model, error)
        yield session


class _Evaluator:
    """onnx's own reference implementation, for what onnxruntime cannot load as it came and may load once repaired."""

    def __init__(self, model: onnx.ModelProto, refusal: Exception) -> None:
        try:
            self._evaluator = onnx.reference.ReferenceEvaluator(model)
        except Exception as error:
            raise UnsupportedSourceError(f"This ONNX model cannot be run: {refusal}") from error
        self._outputs = onnx.shape_inference.infer_shapes(model).graph.output

    def run(self, names: Sequence[str], tensors: Mapping[str, Array]) -> list[Any]:
        return list(self._evaluator.run(list(names), dict(tensors)))

    def get_outputs(self) -> list[_Inferred]:
        return [_Inferred.of(value) for value in self._outputs]


class _Inferred(NamedTuple):
    """An output as onnxruntime describes it."""

    name: str
    shape: list[int | str]

    @classmethod
    def of(cls, value: onnx.ValueInfoProto) -> _Inferred:
        sizes = value.type.tensor_type.shape.dim
        return cls(value.name, [size.dim_value or size.dim_param for size in sizes])


def _drop_zipmaps(model: onnx.ModelProto) -> bool:
    """Let what older scikit-learn files give as maps from class to share be the tensor of shares that it is made of."""
    zipmaps = {node.output[0]: node for node in model.graph.node if node.op_type == "ZipMap"}
    for value in model.graph.output:
        node = zipmaps.get(value.name)
        if node is None:
            continue
        classes = next((len(one.strings) or len(one.ints) for one in node.attribute), 0)
        model.graph.node.remove(node)
        model.graph.node.append(helper.make_node("Identity", [node.input[0]], [value.name]))
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["batch", classes]))
    return bool(zipmaps)


def _outputs(model: onnx.ModelProto, session: Any) -> tuple[TensorSpec, ...]:
    """The outputs; shapes that the file does not declare are taken from what onnxruntime inferred."""
    inferred = {value.name: value.shape for value in session.get_outputs()}
    specs = []
    for value in model.graph.output:
        if not value.type.HasField("tensor_type"):
            raise UnsupportedSourceError(
                f"Output {value.name!r} is a sequence or a map, which cannot be served. "
                "Give the live model that the file was made from, or leave that output out of the file."
            )
        if not value.type.tensor_type.HasField("shape"):
            _declare_shape(value, inferred[value.name] or [])
        specs.append(describe(value))
    return tuple(specs)


def _declare_shape(value: onnx.ValueInfoProto, shape: Sequence[int | str | None]) -> None:
    if not shape:
        raise ConversionError(f"Output {value.name!r} declares no shape. Infer shapes before saving the file.")
    for size in shape:
        axis = value.type.tensor_type.shape.dim.add()
        if isinstance(size, int) and size > 0:
            axis.dim_value = size


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
