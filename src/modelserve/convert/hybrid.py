"""A pipeline of which only the first steps have no portable form: these run as they are, the rest as a graph.

    X ──head (Python)──► values ──tail (graph)──► answers

The shortest head is taken whose tail has a certificate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from modelserve.bundle import Bundle
from modelserve.convert.routes import portable
from modelserve.errors import ConversionError, InputError
from modelserve.live import Example, PartsCall
from modelserve.live.tail import dense
from modelserve.tensors import Array, Tensors


class Split(NamedTuple):
    """A pipeline in two parts, and what to say of it."""

    call: Callable[[Tensors], Mapping[str, Array]]
    reason: str


def split_call(source: Any, given: Example) -> Split | None:
    """The pipeline in two parts; None for what is no pipeline, or one whose last step has no portable form."""
    steps = getattr(source, "steps", None)
    if not isinstance(steps, list) or len(steps) < 2 or not hasattr(type(source), "__getitem__"):
        return None
    args, _ = given.packing(given.tensors)
    for length in range(1, len(steps)):
        head, tail = source[:length], source[length:]
        try:
            middle = dense(head.transform(*args))
            model, bundle = _tail(tail, middle)
        except (ConversionError, InputError, AttributeError, ValueError, TypeError):
            continue
        names = ", ".join(repr(name) for name, _ in steps[:length])
        rest = ", ".join(repr(name) for name, _ in steps[length:])
        return Split(
            PartsCall(head, given.packing, model, bundle.signature),
            f"Its step(s) {names} run as they are; {rest} run as a portable model, which answers as they do.",
        )
    return None


def _tail(tail: Any, middle: Any) -> tuple[bytes, Bundle]:
    """The rest as one serialised graph."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = portable(tail, middle, into=Path(folder) / "tail")
        return _in_one_piece(bundle), bundle


def _in_one_piece(bundle: Bundle) -> bytes:
    import onnx

    model: bytes = onnx.load(bundle.model_path).SerializeToString()
    return model
