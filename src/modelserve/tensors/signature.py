"""What a model takes and gives, and whether what a caller has fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from modelserve.errors import SignatureError
from modelserve.tensors.check import check
from modelserve.tensors.spec import Array, Checked, TensorSpec


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. `primary` names the output that `predict` returns."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    primary: str = ""
    _sole: _Sole | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise SignatureError("A signature needs at least one input and one output.")
        for specs in (self.inputs, self.outputs):
            names = [spec.name for spec in specs]
            if len(set(names)) != len(names):
                raise SignatureError(f"Names must differ from each other, got {names}.")
        if not self.primary:
            object.__setattr__(self, "primary", self.outputs[0].name)
        self.output(self.primary)
        object.__setattr__(self, "_sole", _Sole.of(self.inputs))

    @property
    def is_batched(self) -> bool:
        """Whether rows can be joined and split along a first axis that all inputs and outputs share."""
        first = {spec.shape[0] if spec.shape else None for spec in (*self.inputs, *self.outputs)}
        return len(first) == 1 and isinstance(first.pop(), str)

    def output(self, name: str) -> TensorSpec:
        """The output called `name`.

        Raises:
            SignatureError: there is none.
        """
        for spec in self.outputs:
            if spec.name == name:
                return spec
        raise SignatureError(
            f"There is no output {name!r}; the outputs are {', '.join(spec.name for spec in self.outputs)}."
        )

    def check(self, inputs: Any) -> Checked:
        """Arrays that fit the model, from whatever the caller has.

        Args:
            inputs: For a model of one input an array, nested lists, a DataFrame, or anything numpy can read
                (a torch tensor on the CPU, say). For several: a mapping by name, a tuple in the signature's order,
                or a DataFrame whose columns carry the inputs' names. One row may come without the batch axis.

        Raises:
            SignatureError: names, shapes or values do not fit; the message names the input.
        """
        sole = self._sole
        # The everyday case, an array exactly as wanted, is answered before anything else is looked at.
        if sole is not None and type(inputs) is np.ndarray and sole.fits(inputs):
            return Checked({sole.name: inputs}, inputs.shape[0], False)
        return check(self.inputs, inputs)


class _Sole(NamedTuple):
    """The only input of a model, in the form in which an array is compared with it fastest."""

    name: str
    dtype: np.dtype[Any]
    tail: tuple[int, ...]

    @classmethod
    def of(cls, inputs: Sequence[TensorSpec]) -> _Sole | None:
        spec = inputs[0]
        fixed = tuple(size for size in spec.shape[1:] if isinstance(size, int))
        plain = len(inputs) == 1 and spec.is_batched and spec.allows_nan and spec.dtype != "string"
        return cls(spec.name, spec.numpy_dtype, fixed) if plain and len(fixed) == len(spec.shape) - 1 else None

    def fits(self, array: Array) -> bool:
        return (
            array.dtype is self.dtype
            and array.shape[1:] == self.tail
            and array.size > 0
            and array.ndim > len(self.tail)
            and array.flags.c_contiguous
        )
