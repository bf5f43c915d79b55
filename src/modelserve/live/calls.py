"""How each kind of source is called: a function or model, an estimator's methods, a matrix of its own, a torch module.

Each takes tensors by name and answers with a mapping by name, as `session.CallableSession` asks it to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelserve.errors import SignatureError
from modelserve.live.packing import Packing, named
from modelserve.tensors import Array, Tensors


@dataclass(frozen=True, slots=True)
class SourceCall:
    """A function, a bound method or an object with `__call__`."""

    source: Callable[..., Any]
    packing: Packing

    def __call__(self, tensors: Tensors) -> Mapping[str, Array]:
        args, kwargs = self.packing(tensors)
        return named(self.source(*args, **kwargs), answered)


@dataclass(frozen=True, slots=True)
class EstimatorCall:
    """An estimator. Only the methods whose outputs are looked at are called.

    Attributes:
        methods: The method that gives each output; with a number where it gives a list, that part of it.
    """

    source: Any
    packing: Packing
    methods: Mapping[str, tuple[str, int | None]]

    def __call__(self, tensors: Tensors) -> Mapping[str, Array]:
        return _Lazily(self, self.packing(tensors)[0])

    def answer(self, name: str, given: tuple[Any, ...]) -> Array:
        method, part = self.methods[name]
        found = getattr(self.source, method)(*given)
        return answered(name, found if part is None else found[part])


@dataclass(frozen=True, slots=True)
class MatrixModel:
    """A model whose `predict` takes its framework's own kind of matrix, given rows as estimators are.

    Attributes:
        matrix: That kind; pickled by name, so that nothing here imports the framework.
        settings: What it is always told, and `columns`, what it is told of rows that do not name their own.
    """

    source: Any
    matrix: Callable[..., Any]
    settings: Mapping[str, Any]
    columns: Mapping[str, Any]

    def predict(self, rows: Any) -> Any:
        told = {} if hasattr(rows, "columns") else self.columns
        return self.source.predict(self.matrix(rows, **self.settings, **told))


@dataclass(frozen=True, slots=True)
class TorchCall:
    """A torch module or a function of tensors, evaluating: in eval mode, without gradients.

    Attributes:
        to_tensor: torch's own `from_numpy`, and `no_grad`: pickled by name, so that nothing here imports torch.
        dtypes: The tensors' own dtypes by input name.
    """

    source: Any
    packing: Packing
    to_tensor: Callable[[Array], Any]
    no_grad: Callable[[], contextlib.AbstractContextManager[Any]]
    dtypes: Mapping[str, Any]

    def __call__(self, tensors: Tensors) -> Mapping[str, Array]:
        given = {name: self.to_tensor(np.array(array)).to(self.dtypes[name]) for name, array in tensors.items()}
        args, kwargs = self.packing(given)
        with self.no_grad(), _evaluating(self.source):
            return named(self.source(*args, **kwargs), answered)


class _Lazily(Mapping[str, Array]):
    """An estimator's outputs, each made when it is asked for."""

    def __init__(self, call: EstimatorCall, given: tuple[Any, ...]) -> None:
        self._call = call
        self._given = given

    def __getitem__(self, name: str) -> Array:
        return self._call.answer(name, self._given)

    def __iter__(self) -> Iterator[str]:
        return iter(self._call.methods)

    def __len__(self) -> int:
        return len(self._call.methods)

    def __contains__(self, name: object) -> bool:
        return name in self._call.methods


def answered(name: str, value: Any) -> Array:
    """A part of an answer as an array of numbers, truth values or text.

    Raises:
        SignatureError: it is something else.
    """
    value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    array = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    if array.dtype.kind in "UT":
        array = array.astype(object)
    if array.dtype.kind == "O" and not all(isinstance(item, str) for item in array.flat):
        odd = next(item for item in array.flat if not isinstance(item, str))
        raise SignatureError(
            f"The source answers with {type(odd).__name__} in {name!r}; arrays of numbers or text, and tuples and "
            "dicts of them, can be served."
        )
    if array.dtype.kind not in "biufO":
        raise SignatureError(f"The source answers with {array.dtype} in {name!r}; numbers and text can be served.")
    return array


@contextlib.contextmanager
def _evaluating(source: Any) -> Iterator[None]:
    """Every submodule in eval mode, and as it was afterwards; a plain function has none."""
    parts = [part for part in source.modules() if part.training] if hasattr(source, "modules") else []
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True
