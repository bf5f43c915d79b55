"""PyTorch modules, by torch's own exporters, tried in turn.

    call (how it is called) ──► routes (ways to a graph) ──► ladder (held against the module at several sizes)

The module is left as it was: its modes, its attention and its compiled calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from modelserve.bundle import Origin
from modelserve.convert.contract import Draft
from modelserve.convert.from_torch_call import Call
from modelserve.convert.from_torch_files import open_program
from modelserve.convert.from_torch_routes import module_rungs, program_rungs, script_rungs
from modelserve.convert.ladder import Rung, Source, climb
from modelserve.errors import ConversionError
from modelserve.tensors import Array, Tensors


class TorchConverter:
    """Modules of `torch.nn`, scripted ones, exported programs, and what is built of them (transformers)."""

    roots = ("torch", "transformers")

    def accepts(self, source: Any) -> bool:
        return isinstance(source, torch.nn.Module | torch.export.ExportedProgram)

    def open_file(self, path: Path) -> Any:
        return open_program(path)

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        if isinstance(source, torch.export.ExportedProgram):
            module: torch.nn.Module = source.module()
            call = Call.read(module, _own_example(source) if example is None else example)
            return _climb(source, module, call, program_rungs(source))
        module = _unwrapped(source)
        _refuse_empty(module)
        call = Call.read(module, example)
        rungs = script_rungs if isinstance(module, torch.jit.ScriptModule) else module_rungs
        return _climb(module, module, call, rungs(module, call))


converter = TorchConverter()


def _climb(source: Any, module: torch.nn.Module, call: Call, rungs: Sequence[Rung]) -> Sequence[Callable[[], Draft]]:
    def reference(tensors: Tensors) -> Mapping[str, Array]:
        return call.answer(module, tensors)

    kind = f"{type(source).__module__}.{type(source).__qualname__}".removeprefix("__main__.")
    constants = {name: repr(value) for name, value in call.constants.items() if value is not None}
    origin = Origin("torch", kind, _versions(source))
    return climb(Source(origin, call.tensors, reference, settings={"constants": constants}), rungs)


def _versions(source: Any) -> dict[str, str]:
    found = {"torch": str(torch.__version__)}
    if any(kind.__module__.partition(".")[0] == "transformers" for kind in type(source).__mro__):
        found["transformers"] = version("transformers")
    with contextlib.suppress(PackageNotFoundError):
        found["onnxscript"] = version("onnxscript")
    return found


def _own_example(program: torch.export.ExportedProgram) -> Any:
    """What the program was exported with."""
    args, kwargs = program.example_inputs or ((), {})
    return dict(kwargs) if kwargs else tuple(args)


def _unwrapped(module: Any) -> torch.nn.Module:
    """The module itself, out of torch.compile's and the data-parallel wrappings."""
    while True:
        if hasattr(module, "_orig_mod"):
            module = module._orig_mod  # noqa: SLF001  # where torch.compile keeps it
        elif isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            module = module.module
        else:
            found: torch.nn.Module = module
            return found


def _refuse_empty(module: torch.nn.Module) -> None:
    """A module whose weights do not exist yet would be given random ones by its first call."""
    for name, part in module.named_parameters():
        if isinstance(part, torch.nn.parameter.UninitializedParameter) or part.is_meta:
            raise ConversionError(
                f"{type(module).__name__} has no weights yet (the first is {name!r}). Load or train it first."
            )
