"""Is a module made of plain layers alone, so that a trace of it is the module?

Its code is run on placeholders of torch.fx, which refuse to decide anything; what is left is a list of operations.
Where all of them are plain, nothing depends on values or sizes that a trace could freeze.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_LAYERS = frozenset(
    [
        *(nn.Sequential, nn.Identity, nn.Flatten, nn.Linear, nn.Embedding, nn.Dropout, nn.Dropout2d),
        *(nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm),
        *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
        *(nn.RNN, nn.GRU, nn.LSTM),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softmax, nn.LogSoftmax),
    ]
)
#: Functions and methods by these names, of tensors and of torch.
_OPERATIONS = frozenset(
    [
        *("relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softmax", "log_softmax"),
        *("add", "sub", "mul", "truediv", "div", "neg", "matmul", "linear", "cat", "flatten", "dropout"),
    ]
)


def oddity(module: nn.Module, tensors: int) -> str:
    """The first thing about a module that is not plain; empty where all is.

    Args:
        tensors: How many it is called with; all of its arguments, or its code may go another way.
    """
    if any(_hooks(part) for part in module.modules()):
        return "code hung into its layers"
    if type(module) in _LAYERS:
        return next((_name(part) for part in module.modules() if type(part) not in _LAYERS), "")
    try:
        nodes = list(torch.fx.Tracer().trace(module).nodes)
    except Exception as error:  # noqa: BLE001  # the module's own code meets placeholders, and raises what it likes
        return f"{type(error).__name__}: {str(error)[:200]}"
    if sum(node.op == "placeholder" for node in nodes) != tensors:
        return "arguments that were not given"
    parts = dict(module.named_modules())
    return next(filter(None, (_odd_node(node, parts) for node in nodes)), "")


def _odd_node(node: Any, parts: dict[str, nn.Module]) -> str:
    if node.op == "call_module":
        layer = parts[node.target]
        return "" if type(layer) in _LAYERS else _name(layer)
    if node.op in {"call_function", "call_method"}:
        name = getattr(node.target, "__name__", str(node.target))
        is_plain = name in _OPERATIONS or (name == "getitem" and _is_fixed(node.args[1]))
        return "" if is_plain else name
    return ""


def _is_fixed(index: Any) -> bool:
    """Whether a part is asked for by numbers that stand in the code: a state of a tuple, the last step."""
    if isinstance(index, tuple):
        return all(map(_is_fixed, index))
    if isinstance(index, slice):
        return all(map(_is_fixed, (index.start, index.stop, index.step)))
    return index is None or index is Ellipsis or isinstance(index, int)


def _hooks(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks)  # noqa: SLF001  # torch has no public list of them


def _name(part: nn.Module) -> str:
    return type(part).__qualname__
