"""PyTorch's ways to an ONNX graph, each from a module that takes tensors in a row.

    plain layers only? ──yes──► a trace by TorchScript's exporter, which needs milliseconds
         │ no
    torch.export ─────────────► torch.onnx on the exported program
         │ refuses
    torch.jit.script, torch.jit.trace ──► TorchScript's exporter

torch.export refuses what depends on values; a trace would freeze it, which its warnings give away.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import torch

from modelserve.convert.axes import Freedom, Probe
from modelserve.convert.from_torch_call import Call, Flat, evaluating
from modelserve.convert.from_torch_plain import oddity
from modelserve.convert.ladder import NARROWER, Export, HopelessError, Rung, Scope, UnfitError
from modelserve.errors import ConversionError

_OPSET = 18
_FREEZES: type[Warning] = torch.jit._trace.TracerWarning  # noqa: SLF001  # exported as torch.jit.TracerWarning, untyped
_LOG = "_jit_onnx_log"
_DATA_DEPENDENT = ("GuardOnDataDependent", "data-dependent", "DataDependent")


def module_rungs(module: torch.nn.Module, call: Call) -> list[Rung]:
    """The routes for a module that is Python code."""
    exported = _exported(module, call)
    attention = _attention(module)
    eager = [Rung("export, eager attention", _with_eager(attention, exported))] if attention is not None else []
    scripted = _scripted(module, call)
    return [
        Rung("plain layers", _plain(module, call), (Scope.ALL,)),
        Rung("export", exported, (Scope.ALL,)),
        *eager,
        Rung("scripted", scripted, (Scope.ALL,)),
        Rung("export", exported, NARROWER),
        Rung("scripted", scripted, NARROWER),
        Rung("traced", _traced(module, call)),
    ]


def script_rungs(module: torch.nn.Module, call: Call) -> list[Rung]:
    """The routes for a module that was scripted or traced already."""
    return [Rung("scripted", _traced(module, call)), Rung("script to export", _converted(module, call))]


def program_rungs(program: torch.export.ExportedProgram) -> list[Rung]:
    """The route for a program, whose dynamic axes are in it."""
    return [Rung("program", lambda *_: _to_onnx(program))]


def _plain(module: torch.nn.Module, call: Call) -> Export:
    """By a trace, of modules that a trace cannot get wrong; both exporters write the same operators for them."""

    def export(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        with evaluating(module):
            odd = "constants" if call.constants else oddity(module, len(call.tensors))
        if odd:
            raise UnfitError(f"Not of plain layers alone: {odd}.")
        return _traced(module, call)(given, freedom)

    return export


def _exported(module: torch.nn.Module, call: Call) -> Export:
    """By torch.export."""

    def export(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        tensors = tuple(call.given(given.tensors).values())
        with evaluating(module):
            return _to_onnx(_program(Flat(module, call), tensors, _dynamic(call, freedom)))

    return export


def _program(module: torch.nn.Module, tensors: Sequence[torch.Tensor], shapes: Any) -> torch.export.ExportedProgram:
    refusals = []
    for strict in (False, True):
        try:
            return torch.export.export(module, tuple(tensors), dynamic_shapes=shapes, strict=strict)
        except Exception as error:
            # torch's compiler raises classes of its own, and what the module's own code raises.
            if any(word in f"{type(error).__name__}: {error}" for word in _DATA_DEPENDENT):
                raise HopelessError(f"torch.export: what it does depends on values: {str(error)[:300]}") from error
            refusals.append(f"torch.export (strict={strict}): {type(error).__name__}: {str(error)[:300]}")
    raise ConversionError("; ".join(refusals))


def _dynamic(call: Call, freedom: Freedom) -> Any:
    """For torch.export: which axes of the one parameter `*tensors` it may leave open, finding out itself how."""
    free = {place for axis in freedom.axes for place in axis.places}
    return (
        tuple(
            {at: torch.export.Dim.AUTO for at in range(array.ndim) if (name, at) in free}
            for name, array in call.tensors.items()
        ),
    )


def _to_onnx(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    converted = torch.onnx.export(program, dynamo=True, opset_version=_OPSET, verbose=False)
    assert converted is not None
    return converted.model_proto


def _scripted(module: torch.nn.Module, call: Call) -> Export:
    def export(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        with evaluating(module):
            try:
                scripted = torch.jit.script(module)
            except Exception as error:
                # Compiling raises classes of torch, and whatever the module's code raises.
                raise HopelessError(
                    f"torch.jit.script refuses it: {type(error).__name__}: {str(error)[:300]}"
                ) from error
            return _traced(scripted, call)(given, freedom)

    return export


def _traced(module: torch.nn.Module, call: Call) -> Export:
    """By a trace, in which scripted modules stay whole; not where Python decided something on the way."""

    def export(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        tensors = tuple(call.given(given.tensors).values())
        with evaluating(module), warnings.catch_warnings(record=True) as noticed:
            warnings.simplefilter("always")
            traced = torch.jit.trace(Flat(module, call), tensors, check_trace=False)  # type: ignore[no-untyped-call]  # torch's
        frozen = [
            str(entry.message) for entry in noticed if issubclass(entry.category, _FREEZES) and not _is_check(entry)
        ]
        if frozen:
            raise HopelessError(f"torch.jit.trace would freeze what its Python code decides: {frozen[0][:200]}")
        with evaluating(traced):
            return _by_torchscript(traced, tensors, call, freedom)

    return export


def _is_check(noticed: warnings.WarningMessage) -> bool:
    """Whether torch's own recurrent layers look at their arguments' sizes, which raises or changes nothing."""
    return noticed.filename == torch.nn.modules.rnn.__file__


def _converted(module: torch.nn.Module, call: Call) -> Export:
    """By torch's own way from TorchScript to an exported program, for operators that the older exporter lacks."""

    def export(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        from torch._export.converter import TS2EPConverter

        tensors = call.given(given.tensors)
        args, kwargs = call.arguments(tensors)
        program = TS2EPConverter(module, tuple(args), dict(kwargs)).convert()  # type: ignore[arg-type]  # a script module it is
        return _exported(program.module(check_guards=False), call)(given, freedom)

    return export


def _by_torchscript(module: Any, tensors: Sequence[torch.Tensor], call: Call, freedom: Freedom) -> onnx.ModelProto:
    target = io.BytesIO()
    inputs = [f"in_{at}" for at in range(len(tensors))]
    names = dict(zip(call.tensors, inputs, strict=True))
    dynamic: dict[str, dict[int, str]] = {}
    for number, axis in enumerate(freedom.axes):
        for name, position in axis.places:
            dynamic.setdefault(names[name], {})[position] = f"axis_{number}"
    with _unlogged():
        torch.onnx.export(
            module,
            tuple(tensors),
            target,  # type: ignore[arg-type]  # this exporter writes to any file; its stub knows paths only
            dynamo=False,
            input_names=inputs,
            dynamic_axes=dynamic,
            opset_version=_OPSET,
        )
    return onnx.load_model_from_string(target.getvalue())


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """TorchScript's exporter prints the whole graph, past Python, when it fails."""
    core: Any = torch._C  # noqa: SLF001  # no public switch reaches this log
    log = getattr(core, _LOG)
    setattr(core, _LOG, lambda *_: None)
    try:
        yield
    finally:
        setattr(core, _LOG, log)


def _attention(module: torch.nn.Module) -> Any:
    """The part that lets its attention be exchanged, if it has another than the plain one."""
    for part in module.modules():
        current = getattr(getattr(part, "config", None), "_attn_implementation", None)
        if hasattr(part, "set_attn_implementation") and current not in {None, "eager"}:
            return part
    return None


def _with_eager(part: Any, export: Export) -> Export:
    def exported(given: Probe, freedom: Freedom) -> onnx.ModelProto:
        with _eager(part):
            return export(given, freedom)

    return exported


@contextlib.contextmanager
def _eager(part: Any) -> Iterator[None]:
    """Attention written out in single steps meanwhile, which gives the same numbers up to rounding."""
    before = part.config._attn_implementation  # noqa: SLF001  # the only place that tells
    part.set_attn_implementation("eager")
    try:
        yield
    finally:
        part.set_attn_implementation(before)
