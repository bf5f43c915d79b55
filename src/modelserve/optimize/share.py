"""Weight sharing: equal constants are stored once, such as an embedding that is also the output's matrix. Exact."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Pass
from modelserve.optimize.surgery import has_inner_graphs, tidy

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

# Small ones gain nothing.
_FROM_BYTES = 1024


def share_weights() -> Pass:
    """Store equal constants once."""
    return Pass("share", _share, is_exact=True)


def has_equal_weights(model: ModelProto) -> bool:
    """Whether there is anything to share."""
    return bool(_doubles(model))


def _share(draft: Draft, _calibration: Calibration) -> Draft:
    model = draft.copy_model()
    doubles = _doubles(model)
    if not doubles:
        raise InapplicableError("No two large constants of the graph are equal.")
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = doubles.get(name, name)
    tidy(model)
    return Draft(model, draft.session)


def _doubles(model: ModelProto) -> dict[str, str]:
    """Names of constants that an earlier one equals, and that one's."""
    if has_inner_graphs(model):
        return {}  # an inner graph may use an outer constant by its name
    outputs = {value.name for value in model.graph.output}
    first: dict[bytes, str] = {}
    doubles: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= _FROM_BYTES and tensor.name not in outputs:
            earlier = first.setdefault(_content(tensor), tensor.name)
            if earlier != tensor.name:
                doubles[tensor.name] = earlier
    return doubles


def _content(tensor: TensorProto) -> bytes:
    shape = f"{tensor.data_type} {list(tensor.dims)}".encode()
    return hashlib.sha256(shape + b"\0" + tensor.raw_data).digest()
