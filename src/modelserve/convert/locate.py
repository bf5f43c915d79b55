"""Where a graph leaves its source: the first step whose value is nowhere in the graph.

Steps are found by their values, whatever the exporter calls them. One that is not there may have been folded into the
next, so it is the step behind the last one found that is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from modelserve.bundle.weights import weight_bytes
from modelserve.convert.contract import Draft
from modelserve.fidelity import Tolerance
from modelserve.session import load
from modelserve.tensors import Array, Tensors

if TYPE_CHECKING:
    from onnx import ModelProto

_LARGEST_GRAPH_BYTES = 256 << 20


def first_difference(draft: Draft, tensors: Tensors, tolerance: Tolerance) -> str:
    """A sentence that names the step, with a space before it; empty where it cannot be told."""
    if draft.stages is None or weight_bytes(draft.model) > _LARGEST_GRAPH_BYTES:
        return ""
    try:
        steps = list(draft.stages(tensors))
        values = list(_inner_values(draft.model, tensors))
    except Exception:  # noqa: BLE001  # the refusal stands by itself; this only says more of it where that is possible
        return ""
    found = [index for index, (_, want) in enumerate(steps) if _is_among(want, values, tolerance)]
    first = found[-1] + 1 if found else 0
    return f" The first step that differs is {steps[first][0]!r}." if first < len(steps) else ""


def _inner_values(model: ModelProto, tensors: Tensors) -> Iterator[Array]:
    """All values that the graph computes on these inputs."""
    import onnx

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in shown.graph.output}
    names = [name for node in shown.graph.node for name in node.output if name]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    for value in load(shown.SerializeToString()).run(names, dict(tensors)):
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            yield value


def _is_among(want: Array, values: list[Array], tolerance: Tolerance) -> bool:
    if want.dtype.kind not in "biuf" or not want.size:
        return False
    rows = want.shape[0] if want.ndim else 1
    exact = want.reshape(rows, -1).astype(np.float64)
    allowed = tolerance.allowed(exact)
    for value in values:
        if value.size == want.size:
            with np.errstate(all="ignore"):
                tried = value.reshape(rows, -1).astype(np.float64)
                close = (np.abs(tried - exact) <= allowed) | (tried == exact) | (np.isnan(tried) & np.isnan(exact))
            if close.all():
                return True
    return False
