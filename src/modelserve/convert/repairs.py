"""What is tried with a draft that was refused, before its source is: each repair that helps joins the lineage.

Repairs of one framework's own live in its converter, as further routes; here are those for any graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import onnx
from onnx import version_converter

from modelserve.bundle import Step
from modelserve.bundle.weights import weight_bytes
from modelserve.convert.contract import Draft
from modelserve.convert.quiet import quiet

# One newer and one older than what exporters write today; each has other kernels in onnxruntime.
_OPSETS = (21, 17)
_LARGEST_GRAPH_BYTES = 256 << 20


class Repair(NamedTuple):
    """A draft changed. `title` says how, for people."""

    title: str
    draft: Draft


def repairs(draft: Draft) -> Iterator[Repair]:
    """The same graph in other opsets, where onnx can rewrite it."""
    if weight_bytes(draft.model) > _LARGEST_GRAPH_BYTES:
        return
    now = next((entry.version for entry in draft.model.opset_import if not entry.domain), None)
    for wanted in _OPSETS:
        if now is None or wanted == now:
            continue
        try:
            with quiet():
                model = version_converter.convert_version(draft.model, wanted)
        except (RuntimeError, ValueError, onnx.checker.ValidationError):
            continue  # it has an operator that onnx cannot rewrite
        yield Repair(
            f"opset {wanted}", replace(draft, model=model, steps=(*draft.steps, Step("repair", {"opset": wanted})))
        )
