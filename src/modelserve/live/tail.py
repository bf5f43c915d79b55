"""The portable rest of a pipeline whose first steps run as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelserve.live.calls import answered
from modelserve.live.packing import Packing
from modelserve.session import load
from modelserve.tensors import Array, Signature, Tensors


@dataclass(slots=True)
class PartsCall:
    """A pipeline in two parts.

    Attributes:
        head: The steps that run as they are.
        model: The rest, as a serialised graph; each process that calls it loads it once.
        signature: What the rest takes and gives.
    """

    head: Any
    packing: Packing
    model: bytes
    signature: Signature
    _session: Any = field(default=None, repr=False, compare=False)

    def __call__(self, tensors: Tensors) -> Mapping[str, Array]:
        args, _ = self.packing(tensors)
        given = self.signature.check(dense(self.head.transform(*args))).tensors
        if self._session is None:
            self._session = load(self.model)
        names = [spec.name for spec in self.signature.outputs]
        return {name: answered(name, array) for name, array in zip(names, self._session.run(names, given), strict=True)}

    def __getstate__(self) -> tuple[Any, ...]:
        return self.head, self.packing, self.model, self.signature

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.head, self.packing, self.model, self.signature = state
        self._session = None


def dense(value: Any) -> Any:
    """A sparse matrix as an array, and everything else as it is."""
    return value.toarray() if hasattr(value, "toarray") else value
