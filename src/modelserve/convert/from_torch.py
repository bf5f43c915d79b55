"""PyTorch modules, by torch's own exporters, tried in turn.

    torch.export (dynamo) ──► TorchScript of the scripted module ──► TorchScript of the traced module

The first axis of every input becomes "batch". Each route's graph is compared with the module before it is believed.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from modelserve.bundle import Origin, Step
from modelserve.convert.contract import Draft
from modelserve.convert.graph import declare, describe, rename
from modelserve.convert.quiet import quiet
from modelserve.convert.stages import module_stages
from modelserve.errors import ConversionError, ExampleRequiredError, SignatureError, UnsupportedSourceError
from modelserve.tensors import Array, Signature, Tensors, TensorSpec

_OPSET = 18


class TorchConverter:
    """Modules of `torch.nn`, and scripted ones."""

    roots = ("torch",)

    def accepts(self, source: Any) -> bool:
        return isinstance(source, torch.nn.Module | torch.export.ExportedProgram)

    def open_file(self, path: Path) -> Any:
        """The program in a TorchScript or ExportedProgram file; detection has made sure that it is no pickle."""
        try:
            if _is_exported(path):
                _refuse_pickles(path)
                return torch.export.load(path)
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]  # torch's
        except (RuntimeError, OSError, ValueError) as error:
            raise UnsupportedSourceError(f"{str(path)!r} cannot be read by torch: {error}") from error

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        if isinstance(source, torch.export.ExportedProgram):
            return _exported_drafts(source, example)
        module = _unwrapped(source)
        call = _Call.read(module, example)
        routes = [("scripted", _export_scripted)] if isinstance(module, torch.jit.ScriptModule) else _ROUTES
        return [partial(_draft, module, call, name, export) for name, export in routes]


converter = TorchConverter()


@dataclass(frozen=True, slots=True)
class _Call:
    """How the module is called: tensors by the names of forward's parameters."""

    names: tuple[str, ...]
    tensors: Tensors
    by_keyword: bool
    dtypes: Mapping[str, torch.dtype]

    @classmethod
    def read(cls, module: torch.nn.Module, example: Any) -> _Call:
        if example is None:
            raise ExampleRequiredError(
                f"{type(module).__name__} does not say what it takes. Give rows of what it was trained on: "
                "Model(module, example=X[:8])"
            )
        parameters = _parameters(module)
        if isinstance(example, Mapping):
            given = {str(name): value for name, value in example.items()}
        else:
            values = example if isinstance(example, tuple) else (example,)
            if len(values) > len(parameters):
                raise SignatureError(f"forward takes {', '.join(parameters)}; the example has {len(values)} parts.")
            given = dict(zip(parameters, values, strict=False))
        tensors = {name: _as_array(name, value) for name, value in given.items()}
        own = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        dtypes = {name: own if array.dtype.kind == "f" else _torch_dtype(array) for name, array in tensors.items()}
        return cls(tuple(tensors), tensors, isinstance(example, Mapping), dtypes)

    def given(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """The module's own tensors, from arrays."""
        return {name: torch.from_numpy(np.array(tensors[name])).to(self.dtypes[name]) for name in self.names}

    def run(self, module: torch.nn.Module, tensors: Tensors) -> Any:
        given = self.given(tensors)
        return module(**given) if self.by_keyword else module(*given.values())


def _draft(module: torch.nn.Module, call: _Call, route: str, export: _Export) -> Draft:
    with _evaluating(module):
        answers = _named(call.run(module, call.tensors))
        try:
            with quiet():
                model = export(module, call)
        except Exception as error:
            # The exporters raise classes of their own, of torch's compiler, and of the module's own code.
            raise ConversionError(f"torch's exporter ({route}) refuses it: {str(error)[:500]}") from error
    names = [value.name for value in model.graph.input]
    if len(names) != len(call.names) or len(model.graph.output) != len(answers):
        raise ConversionError(f"The exporter ({route}) left out inputs or outputs: it kept {names}.")
    renamed = dict(zip(names, call.names, strict=True))
    renamed |= dict(zip((value.name for value in model.graph.output), answers, strict=True))
    rename(model, renamed)
    inputs = tuple(
        TensorSpec(value.name, call.tensors[value.name].dtype.name, describe(value).shape)
        for value in model.graph.input
    )
    outputs = tuple(_output_spec(name, array, call) for name, array in answers.items())
    declare(model, inputs, outputs)

    def reference(tensors: Tensors) -> Mapping[str, Array]:
        with _evaluating(module):
            return _named(call.run(module, tensors))

    return Draft(
        model=model,
        signature=Signature(inputs, outputs),
        example=call.tensors,
        reference=reference,
        origin=Origin(
            "torch",
            f"{type(module).__module__}.{type(module).__qualname__}".removeprefix("__main__."),
            {"torch": torch.__version__},
        ),
        steps=(Step("convert", {"from": "torch", "route": route}),),
        stages=module_stages(module, reference),
    )


def _exported_drafts(program: torch.export.ExportedProgram, example: Any) -> Sequence[Callable[[], Draft]]:
    """An exported program has its dynamic axes in it already."""
    if example is None:
        args, kwargs = program.example_inputs or ((), {})
        example = dict(kwargs) if kwargs else tuple(args)
    module = program.module()
    call = _Call.read(module, example)
    return [partial(_draft, module, call, "exported", lambda *_: _to_onnx(program))]


def _to_onnx(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    converted = torch.onnx.export(program, dynamo=True, opset_version=_OPSET, verbose=False)
    assert converted is not None
    return converted.model_proto


def _is_exported(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/archive_format") for name in archive.namelist())


def _refuse_pickles(path: Path) -> None:
    """torch.export.load unpickles custom constants, and sample inputs that its safe loader refuses."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            folder, _, file = name.rpartition("/")
            if folder.endswith("data/constants") and file.startswith(("custom_obj", "opaque")):
                raise UnsupportedSourceError(f"{str(path)!r} holds a pickled object ({file}). Give the live program.")
            if folder.endswith("data/sample_inputs"):
                try:
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                except Exception as error:
                    raise UnsupportedSourceError(
                        f"{str(path)!r} holds pickled sample inputs that are not plain tensors. Give the live program."
                    ) from error


def _export_dynamo(module: torch.nn.Module, call: _Call) -> onnx.ModelProto:
    given = call.given(call.tensors)
    shapes = {name: {0: torch.export.Dim.DYNAMIC} for name in given}
    program = torch.onnx.export(
        module,
        () if call.by_keyword else tuple(given.values()),
        kwargs=given if call.by_keyword else None,
        dynamo=True,
        dynamic_shapes=shapes if call.by_keyword else tuple(shapes.values()),
        opset_version=_OPSET,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _export_scripted(module: torch.nn.Module, call: _Call) -> onnx.ModelProto:
    scripted = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
    return _export_torchscript(scripted, call)


def _export_traced(module: torch.nn.Module, call: _Call) -> onnx.ModelProto:
    traced = torch.jit.trace(module, tuple(call.given(call.tensors).values()))  # type: ignore[no-untyped-call]  # torch's
    return _export_torchscript(traced, call)


def _export_torchscript(module: Any, call: _Call) -> onnx.ModelProto:
    given = tuple(call.given(call.tensors).values())
    target = io.BytesIO()
    inputs = [f"in_{index}" for index in range(len(given))]
    outputs = [f"out_{index}" for index in range(len(_named(module(*given))))]
    torch.onnx.export(
        module,
        given,
        target,  # type: ignore[arg-type]  # this exporter writes to any file; its stub knows paths only
        dynamo=False,
        input_names=inputs,
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
        opset_version=_OPSET,
    )
    return onnx.load_model_from_string(target.getvalue())


_Export = Callable[[torch.nn.Module, _Call], onnx.ModelProto]
_ROUTES: Sequence[tuple[str, _Export]] = (
    ("dynamo", _export_dynamo),
    ("scripted", _export_scripted),
    ("traced", _export_traced),
)


def _unwrapped(module: Any) -> torch.nn.Module:
    """The module itself, out of torch.compile's or DataParallel's wrapping."""
    inner: torch.nn.Module = getattr(module, "_orig_mod", module)
    return inner.module if isinstance(inner, torch.nn.DataParallel) else inner


def _parameters(module: torch.nn.Module) -> list[str]:
    if isinstance(module, torch.jit.ScriptModule):
        return [argument.name for argument in module.forward.schema.arguments[1:]]  # type: ignore[attr-defined]  # a script method has one
    return [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]


def _as_array(name: str, value: Any) -> Array:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim == 0 or array.shape[0] == 0:
        raise SignatureError(
            f"The example for {name!r} must be numbers with at least one row, got {array.dtype} of shape {array.shape}."
        )
    return np.ascontiguousarray(array)


def _torch_dtype(array: Array) -> torch.dtype:
    return torch.from_numpy(array[:0].copy()).dtype


def _named(answer: Any) -> dict[str, Array]:
    """The module's answer as arrays by name."""
    if isinstance(answer, torch.Tensor):
        return {"output": answer.detach().cpu().numpy()}
    if isinstance(answer, Mapping):
        return {str(name): _named(value)["output"] for name, value in answer.items() if value is not None}
    if isinstance(answer, tuple | list):
        parts = [part for part in answer if part is not None]
        return {f"output_{index}": _named(part)["output"] for index, part in enumerate(parts)}
    raise ConversionError(f"The module answers with {type(answer).__name__}; tensors, tuples and dicts can be served.")


def _output_spec(name: str, array: Array, call: _Call) -> TensorSpec:
    rows = next(iter(call.tensors.values())).shape[0]
    is_batched = array.ndim > 0 and array.shape[0] == rows
    return TensorSpec(name, array.dtype.name, ("batch", *array.shape[1:]) if is_batched else array.shape)


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Every submodule in eval mode, no gradients, attention by its exact path; all of it as before afterwards."""
    training = [part for part in module.modules() if part.training]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for part in training:
        part.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
        torch.backends.mha.set_fastpath_enabled(fast_path)
