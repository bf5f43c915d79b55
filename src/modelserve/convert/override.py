"""The caller's signature over a draft's own: other names, dtypes and axes; what it promises is tried like the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from modelserve.convert.contract import Draft, Stages
from modelserve.convert.graph import declare, rename
from modelserve.errors import SignatureError
from modelserve.tensors import Array, Signature, Tensors, TensorSpec


def overridden(draft: Draft, wanted: Signature) -> Draft:
    """The draft with the inputs and outputs of `wanted`; outputs that it leaves out keep theirs.

    Where all its names are the draft's own they are matched by name, else by order.

    Raises:
        SignatureError: it has more of them than the model, other numbers of axes, or text where numbers are.
    """
    inputs = _pairs(draft.signature.inputs, wanted.inputs)
    outputs = _pairs(draft.signature.outputs, wanted.outputs)
    rename(draft.model, {old.name: new.name for old, new in (*inputs, *outputs)})
    declare(draft.model, [new for _, new in inputs], [new for _, new in outputs])
    reference = draft.reference
    named = {spec.name for spec in wanted.outputs}

    def renamed(tensors: Tensors) -> Mapping[str, Array]:
        answers = reference({old.name: tensors[new.name].astype(old.numpy_dtype) for old, new in inputs})
        return {new.name: np.asarray(answers[old.name]).astype(new.numpy_dtype) for old, new in outputs}

    first = next(new.name for old, new in outputs if old.name == draft.signature.primary)
    signature = Signature(
        tuple(new for _, new in inputs),
        tuple(new for _, new in outputs),
        wanted.primary if wanted.primary in named else first,
    )
    return replace(
        draft,
        signature=signature,
        example={new.name: _recast(old, new, draft.example[old.name]) for old, new in inputs},
        reference=renamed,
        decisions=frozenset(new.name for old, new in outputs if old.name in draft.decisions),
        stages=None if draft.stages is None else _renamed_stages(draft.stages, inputs),
    )


def _pairs(own: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> list[tuple[TensorSpec, TensorSpec]]:
    by_name = {spec.name: spec for spec in wanted}
    if by_name.keys() <= {spec.name for spec in own}:
        found = [(spec, by_name.get(spec.name, spec)) for spec in own]
    else:
        found = list(zip(own, (*wanted, *own[len(wanted) :]), strict=False))
    fits = len(wanted) <= len(own) and all(
        len(old.shape) == len(new.shape) and (old.dtype == "string") == (new.dtype == "string") for old, new in found
    )
    if not fits:
        raise SignatureError(
            f"The signature given says {_described(wanted)}; the model has {_described(own)}. "
            "Names, dtypes of numbers, and which axes may be of any size can be given otherwise."
        )
    return [(old, replace(new, columns=new.columns or old.columns)) for old, new in found]


def _recast(old: TensorSpec, new: TensorSpec, array: Array) -> Array:
    """The example as the new signature has it."""
    for axis, size in enumerate(new.shape):
        if isinstance(size, int) and size != array.shape[axis]:
            raise SignatureError(
                f"The signature given says {new.name}: {new}, and the example has shape {array.shape}. "
                "Give an example of that shape, or a name such as 'batch' where any size will do."
            )
    with np.errstate(all="ignore"):
        cast = array.astype(new.numpy_dtype)
        if new.numpy_dtype.kind in "biu" and not np.array_equal(cast.astype(array.dtype), array):
            raise SignatureError(
                f"The signature given says {new.name}: {new}, which cannot hold the example's {old.dtype} values."
            )
    return cast


def _renamed_stages(stages: Stages, inputs: Sequence[tuple[TensorSpec, TensorSpec]]) -> Stages:
    def renamed(tensors: Tensors) -> Iterable[tuple[str, Array]]:
        return stages({old.name: tensors[new.name].astype(old.numpy_dtype) for old, new in inputs})

    return renamed


def _described(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name}: {spec}" for spec in specs)
