"""PyTorch modules, by torch's own exporters, tried in turn.

    call (how it is called) ──► routes (ways to a graph) ──► ladder (held against the module at several sizes)

The module is left as it was: its modes, its attention and its compiled calls.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from modelserve.bundle import Origin
from modelserve.convert.contract import Draft, Tolerance
from modelserve.convert.from_torch_call import Call
from modelserve.convert.from_torch_files import open_program
from modelserve.convert.from_torch_routes import module_rungs, program_rungs, script_rungs
from modelserve.convert.ladder import Rung, Source, climb
from modelserve.convert.stages import module_stages
from modelserve.errors import ConversionError
from modelserve.tensors import Array, Tensors

# A bfloat16 has eight bits of its number, and every layer rounds to them anew.
_BFLOAT = Tolerance(2e-2, 5e-2)


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
        module = _on_host(_unwrapped(source))
        call = Call.read(module, example)
        rungs = script_rungs if isinstance(module, torch.jit.ScriptModule) else module_rungs
        if not _is_bfloat(module):
            return _climb(module, module, call, rungs(module, call))
        # ONNX's runtimes lack most operators in bfloat16; float32 holds its weights exactly.
        wide = rungs(_copied(module).to(torch.float32), call.widened())
        return _climb(module, module, call, wide, settings={"computes": "float32"}, tolerance=_BFLOAT)


converter = TorchConverter()


def _climb(
    source: Any,
    module: torch.nn.Module,
    call: Call,
    rungs: Sequence[Rung],
    *,
    settings: Mapping[str, Any] | None = None,
    tolerance: Tolerance | None = None,
) -> Sequence[Callable[[], Draft]]:
    def reference(tensors: Tensors) -> Mapping[str, Array]:
        return call.answer(module, tensors)

    kind = f"{type(source).__module__}.{type(source).__qualname__}".removeprefix("__main__.")
    constants = {name: repr(value) for name, value in call.constants.items() if value is not None}
    settled = {"constants": constants, **(settings or {})}
    origin = Origin("torch", kind, _versions(source))
    stages = module_stages(module, reference)
    found = Source(origin, call.tensors, reference, settings=settled, tolerance=tolerance, stages=stages)
    return climb(found, rungs)


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


def _on_host(module: torch.nn.Module) -> torch.nn.Module:
    """The module, or a copy on the CPU of one that is elsewhere.

    Raises:
        ConversionError: its weights do not exist yet; a first call would make random ones.
    """
    devices = set()
    for name, part in module.named_parameters():
        if isinstance(part, torch.nn.parameter.UninitializedParameter) or part.is_meta:
            raise ConversionError(
                f"{type(module).__name__} has no weights yet (the first is {name!r}). Load or train it first."
            )
        devices.add(part.device.type)
    return module if devices <= {"cpu"} else _copied(module).cpu()


def _copied(module: torch.nn.Module) -> torch.nn.Module:
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise ConversionError(
            f"{type(module).__name__} cannot be copied to the CPU or to float32: {error}. "
            "Give it as module.cpu().float()."
        ) from error


def _is_bfloat(module: torch.nn.Module) -> bool:
    return any(part.dtype == torch.bfloat16 for part in module.parameters())
