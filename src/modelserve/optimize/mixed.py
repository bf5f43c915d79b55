"""Mixed precision: a scan finds the layers that 8 bits hurt most, and those stay wider.

for each layer: quantise it alone, see how far the output moves ──► the worst keep 8-bit weights, wider arithmetic
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Pass
from modelserve.optimize.int8 import dense_layers, quantize_layers
from modelserve.optimize.surgery import tidy
from modelserve.optimize.weight_only import narrow_layers
from modelserve.tensors import Array

_ROWS_OF_SCAN = 64


def int8_mixed(keep_wide: int) -> Pass:
    """int8, except for the `keep_wide` most sensitive layers."""

    def change(draft: Draft, calibration: Calibration) -> Draft:
        layers = dense_layers(draft.model)
        if len(layers) <= keep_wide:
            raise InapplicableError(f"The graph has {len(layers)} matrices; {keep_wide} of them cannot stay wider.")
        order = sensitivity(draft, layers, calibration)
        model = draft.copy_model()
        narrow_layers(model, bits=8, only=frozenset(order[:keep_wide]))
        changed = quantize_layers(Draft(model, draft.session), _still_dense(model, layers))
        tidy(changed.model)
        return changed

    return Pass("int8-mixed", change, {"keep_wide": keep_wide})


def sensitivity(draft: Draft, layers: Sequence[str], calibration: Calibration) -> list[str]:
    """The layers, those first whose quantisation alone moves the outputs most."""
    batch = {name: array[:_ROWS_OF_SCAN] for name, array in calibration[0].items()}
    wanted = _numbers(draft, batch)
    moved = {
        layer: _distance(wanted, _numbers(quantize_layers(draft, [layer], tables=False), batch)) for layer in layers
    }
    return sorted(layers, key=lambda layer: -moved[layer])


def _still_dense(model: object, layers: Sequence[str]) -> list[str]:
    names = {node.name for node in model.graph.node}  # type: ignore[attr-defined]  # a ModelProto
    return [layer for layer in layers if layer in names]


def _numbers(draft: Draft, batch: dict[str, Array]) -> list[Array]:
    return [array for array in draft.load().run(None, batch) if getattr(array, "dtype", np.dtype(object)).kind == "f"]


def _distance(wanted: Sequence[Array], got: Sequence[Array]) -> float:
    return sum(float(np.square(a - b).mean() / max(float(a.var()), 1e-12)) for a, b in zip(wanted, got, strict=True))
