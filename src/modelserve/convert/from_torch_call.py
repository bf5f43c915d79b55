"""How a PyTorch module is called: arrays by name in, arrays by name out, whatever its own arguments and answers are."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from modelserve.convert.structure import Form, as_array, form, joined, named
from modelserve.errors import ExampleRequiredError, SignatureError
from modelserve.tensors import Array, Tensors

#: Where `module.compile()` keeps the compiled call that stands in for forward.
_COMPILED = "_compiled_call_impl"


@dataclass(frozen=True, slots=True)
class Call:
    """One way to call a module.

    Attributes:
        tensors: The example's arrays by name, in the order in which the module's tensors are given.
        dtypes: Those that the module takes, which may be narrower than the example's.
        arguments: Positional and keyword arguments out of the module's tensors by name.
        constants: What the example fixed besides tensors.
    """

    tensors: Tensors
    dtypes: Mapping[str, torch.dtype]
    arguments: Callable[[Mapping[str, Any]], tuple[Sequence[Any], Mapping[str, Any]]]
    constants: Mapping[str, Any]

    @classmethod
    def read(cls, module: torch.nn.Module, example: Any) -> Call:
        """The call that the example shows.

        Raises:
            ExampleRequiredError, SignatureError: there is none, or none that fits.
        """
        if example is None:
            raise ExampleRequiredError(
                f"{type(module).__name__} does not say what it takes. Give rows of what it was trained on: "
                "Model(module, example=X[:8])"
            )
        shape = _form(module, example)
        if not shape.leaves:
            raise SignatureError(f"The example holds no tensors, only {dict(shape.constants)!r}. Give rows of inputs.")
        tensors = {name: as_array(name, _on_host(leaf)) for name, leaf in shape.leaves.items()}
        dtypes = {name: _torch_dtype(leaf, tensors[name]) for name, leaf in shape.leaves.items()}
        call = cls(tensors, dtypes, shape.build, shape.constants)
        own = next((part.dtype for part in module.parameters() if part.is_floating_point()), None)
        narrowed = {name: own if own and dtype.is_floating_point else dtype for name, dtype in dtypes.items()}
        return call if narrowed == dtypes or call.fits(module) else replace(call, dtypes=narrowed)

    def widened(self) -> Call:
        """The same in float32 where it is in bfloat16."""
        wide = {name: torch.float32 if d == torch.bfloat16 else d for name, d in self.dtypes.items()}
        return replace(self, dtypes=wide)

    def given(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """The module's own tensors, from arrays."""
        return {name: torch.from_numpy(np.array(tensors[name])).to(self.dtypes[name]) for name in self.tensors}

    def run(self, module: torch.nn.Module, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The module's answer by name. It is to be within `evaluating`."""
        args, kwargs = self.arguments(given)
        return named(module(*args, **kwargs), _is_tensor, taken=self.tensors)

    def answer(self, module: torch.nn.Module, tensors: Tensors) -> dict[str, Array]:
        """`run`, from arrays to arrays."""
        with evaluating(module):
            return {name: to_array(part) for name, part in self.run(module, self.given(tensors)).items()}

    def fits(self, module: torch.nn.Module) -> bool:
        """Whether the module takes the example's own dtypes."""
        try:
            self.answer(module, self.tensors)
        except Exception:  # noqa: BLE001  # a module refuses dtypes by any exception
            return False
        return True


class Flat(torch.nn.Module):
    """A module that takes tensors in a row and answers with a tuple of them: what every exporter understands."""

    def __init__(self, inner: torch.nn.Module, call: Call) -> None:
        super().__init__()
        self.inner = inner
        self._call = call
        self.training = False  # exporters put a module back into the mode that its outside shows

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self._call.tensors, tensors, strict=True))
        seen = {id(tensor) for tensor in tensors}
        parts = []
        for part in self._call.run(self.inner, given).values():
            # An input handed on, or one tensor twice, has to be a value of its own in the graph.
            parts.append(part.clone() if id(part) in seen else part)
            seen.add(id(part))
        return tuple(parts)


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """The module as it answers when served; everything as before afterwards.

    Eval mode throughout, no gradients, attention by its exact path, no compiled calls, no key-value caches as outputs.
    """
    parts = list(module.modules())
    training = [part for part in parts if part.training]
    compiled = {part: call for part in parts if (call := getattr(part, _COMPILED, None)) is not None}
    caching = [config for config in _configs(parts) if getattr(config, "use_cache", None) is True]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    _set(training, "training", value=False)
    _set(compiled, _COMPILED, value=None)
    _set(caching, "use_cache", value=False)
    try:
        with torch.no_grad():
            yield
    finally:
        _set(training, "training", value=True)
        for part, call in compiled.items():
            setattr(part, _COMPILED, call)
        _set(caching, "use_cache", value=True)
        torch.backends.mha.set_fastpath_enabled(fast_path)


def to_array(tensor: torch.Tensor) -> Array:
    """As an array; bfloat16, which numpy lacks, as float32, which holds it exactly."""
    tensor = tensor.detach().cpu()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _form(module: torch.nn.Module, example: Any) -> Form:
    parameters = _Parameters.of(module)
    if isinstance(example, Mapping):
        forms = {str(name): form(str(name), value) for name, value in example.items()}
        if parameters.take(forms):
            return joined(forms, lambda parts: ((), parts))
        # No parameter has such a name: the dict itself is the argument.
        return joined(forms, lambda parts: ((parts,), {}))
    values = example if isinstance(example, tuple) else (example,)
    names = parameters.first(len(values))
    forms = {name: form(name, value) for name, value in zip(names, values, strict=True)}
    return joined(forms, lambda parts: (tuple(parts.values()), {}))


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What forward takes: names by position, names by keyword only, and whether it takes any others."""

    positional: Sequence[str]
    by_keyword: Sequence[str] = ()
    more: bool = False
    more_by_keyword: bool = False

    @classmethod
    def of(cls, module: torch.nn.Module) -> _Parameters:
        if isinstance(module, torch.jit.ScriptModule):
            schema = module.forward.schema  # type: ignore[attr-defined]  # a script method has one
            return cls([argument.name for argument in schema.arguments[1:]])
        found = inspect.signature(module.forward).parameters.values()
        return cls(
            [p.name for p in found if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}],
            [p.name for p in found if p.kind is p.KEYWORD_ONLY],
            any(p.kind is p.VAR_POSITIONAL for p in found),
            any(p.kind is p.VAR_KEYWORD for p in found),
        )

    def take(self, names: Iterable[str]) -> bool:
        """Whether `names` can be given as keywords."""
        return self.more_by_keyword or all(name in (*self.positional, *self.by_keyword) for name in names)

    def first(self, count: int) -> list[str]:
        """Names of the first `count` arguments."""
        if count > len(self.positional) and not self.more:
            raise SignatureError(f"forward takes {', '.join(self.positional)}; the example has {count} parts.")
        more = [f"input_{at}" for at in range(len(self.positional), count)]
        return [*self.positional, *more][:count]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _on_host(leaf: Any) -> Any:
    return to_array(leaf) if isinstance(leaf, torch.Tensor) else leaf


def _torch_dtype(leaf: Any, array: Array) -> torch.dtype:
    return leaf.dtype if isinstance(leaf, torch.Tensor) else torch.from_numpy(array.reshape(-1)[:1].copy()).dtype


def _configs(parts: Sequence[torch.nn.Module]) -> list[Any]:
    found = {id(part.config): part.config for part in parts if hasattr(part, "config")}
    return list(found.values())


def _set(things: Iterable[Any], name: str, *, value: Any) -> None:
    for thing in things:
        setattr(thing, name, value)
