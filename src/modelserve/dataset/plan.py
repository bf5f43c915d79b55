"""Everything that a run needs to know, and what its bytes depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from modelserve.dataset.feed import Feed
from modelserve.dataset.part import Shape
from modelserve.dataset.pieces import Boundaries
from modelserve.dataset.sink import Sink
from modelserve.dataset.sources import Source, Wanted

# Whose version can change a bit of the result.
_MAKERS = ("numpy", "onnxruntime", "pyarrow")
_NOT_FOUND = Boundaries(1, 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        outputs: Names as the caller gave them; empty for the primary one.
        boundaries: Where batches and parts end; found after everything else.
        timeout_s: Longest time for one request.
    """

    source: Source
    feed: Feed
    wanted: Wanted
    keep: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: Shape
    sink: Sink
    boundaries: Boundaries = _NOT_FOUND
    timeout_s: float | None = None

    @property
    def chunk_rows(self) -> int:
        """Rows that are read at once: whole batches."""
        return max(self.boundaries.batch_rows, self.boundaries.part_rows // 16)


def identity(model: str, plan: Plan) -> dict[str, Any]:
    """What a result depends on, beside its boundaries. `model` is the model's digest."""
    source = plan.source.identity
    return {
        "model": model,
        "source": {"kind": "stream"} if source is None else dict(source),
        "columns": {name: list(columns) for name, columns in plan.feed.columns.items()},
        "keep": list(plan.keep),
        "outputs": [spec.name for spec in plan.shape.outputs],
        "cast": plan.feed.rounds,
        "format": plan.sink.name,
        "made_with": _makers(),
    }


def _makers() -> Mapping[str, str]:
    found = {}
    for name in ("modelserve", *_MAKERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found
