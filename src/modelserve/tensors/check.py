"""The check of a caller's inputs: names, then each value, then the axes that inputs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelserve.errors import SignatureError
from modelserve.tensors.fit import fit, is_column
from modelserve.tensors.given import by_name
from modelserve.tensors.spec import Array, Checked, TensorSpec


def check(specs: Sequence[TensorSpec], inputs: Any) -> Checked:
    """Arrays that fit, in the order of `specs`; see `Signature.check`."""
    given = by_name(specs, inputs)
    fitted = [fit(spec, given[spec.name], is_column=is_column(specs, spec)) for spec in specs]
    single = _is_single(specs, [lacks for _, lacks in fitted])
    sizes: dict[str, tuple[str, int]] = {}
    tensors: dict[str, Array] = {}
    for spec, (array, _) in zip(specs, fitted, strict=True):
        _match_axes(spec, array, sizes)
        tensors[spec.name] = array
    first = specs[0]
    rows = tensors[first.name].shape[0] if first.is_batched else 1
    return Checked(tensors, rows, single)


def _is_single(specs: Sequence[TensorSpec], lacks: Sequence[bool | None]) -> bool:
    """Whether the batch axis was left out; what can be read either way is read as the others are."""
    known = {lack for spec, lack in zip(specs, lacks, strict=True) if spec.is_batched and lack is not None}
    if len(known) > 1:
        raise SignatureError("Some inputs have the batch axis and some do not; give all of them with it, or none.")
    return known == {True}


def _match_axes(spec: TensorSpec, array: Array, sizes: dict[str, tuple[str, int]]) -> None:
    for axis, (want, got) in enumerate(zip(spec.shape, array.shape, strict=True)):
        if isinstance(want, str):
            owner, size = sizes.setdefault(want, (spec.name, got))
            if size != got:
                raise SignatureError(
                    f"Input {spec.name!r} has {got} along {want!r} (axis {axis}), but {owner!r} has {size}."
                )
        elif want != got:
            raise SignatureError(
                f"Input {spec.name!r} must be {spec}, got shape {array.shape}: axis {axis} must be {want}."
            )
