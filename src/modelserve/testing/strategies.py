"""Hypothesis strategies for what models take and give."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelserve.tensors import OIP_DATATYPES, Array, Signature, TensorSpec

_NAMES = st.text(st.characters(categories=("L", "N"), include_characters="_ .:/"), min_size=1, max_size=12)
_SIZES = st.integers(1, 4)


def dtypes() -> st.SearchStrategy[str]:
    """Every dtype that a tensor can have."""
    return st.sampled_from(sorted(OIP_DATATYPES))


@st.composite
def specs(draw: st.DrawFn, *, batched: bool | None = None) -> TensorSpec:
    """A tensor of up to three axes; its first axis is "batch" as `batched` says, or as it comes."""
    shape: tuple[int | str, ...] = tuple(draw(st.lists(_SIZES, max_size=2)))
    if draw(st.booleans()) if batched is None else batched:
        shape = ("batch", *shape)
    return TensorSpec(draw(_NAMES), draw(dtypes()), shape)


@st.composite
def signatures(draw: st.DrawFn, *, batched: bool | None = None) -> Signature:
    """What a model of one to three inputs and outputs takes and gives."""
    is_batched = draw(st.booleans()) if batched is None else batched
    sides = st.lists(specs(batched=is_batched), min_size=1, max_size=3, unique_by=lambda spec: spec.name)
    inputs, outputs = draw(sides), draw(sides)
    return Signature(tuple(inputs), tuple(outputs), draw(st.sampled_from(outputs)).name)


@st.composite
def arrays(draw: st.DrawFn, spec: TensorSpec, *, rows: int = 2) -> Array:
    """An array that `spec` takes, with `rows` along its named axes."""
    shape = tuple(rows if isinstance(size, str) else size for size in spec.shape)
    if spec.dtype != "string":
        return draw(hnp.arrays(np.dtype(spec.dtype), shape))
    array: Array = draw(hnp.arrays(np.dtype(object), shape, elements=st.text(max_size=8), fill=st.nothing()))
    return array


def tensors(signature: Signature, *, rows: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Inputs that `signature` takes, by name, each with `rows` rows."""
    return st.fixed_dictionaries({spec.name: arrays(spec, rows=rows) for spec in signature.inputs})
