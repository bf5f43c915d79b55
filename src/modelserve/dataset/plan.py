"""Everything that a run needs to know, and what its bytes depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        outputs: Names as the caller gave them; empty for the primary one.
        timeout_s: Longest time for one request.
    """

    source: Source
    feed: Feed
    wanted: Wanted
    keep: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: Shape
    sink: Sink
    boundaries: Boundaries
    timeout_s: float | None = None

    @property
    def chunk_rows(self) -> int:
        """Rows that are read at once: whole batches."""
        return max(self.boundaries.batch_rows, self.boundaries.part_rows // 4)


def identity(model: str, source: Source, feed: Feed, keep: Sequence[str], shape: Shape, sink: Sink) -> dict[str, Any]:
    """What a result depends on, beside its boundaries."""
    return {
        "model": model,
        "source": dict(source.identity) if source.identity is not None else {"kind": "stream"},
        "columns": {name: list(columns) for name, columns in feed.columns.items()},
        "keep": list(keep),
        "outputs": [spec.name for spec in shape.outputs],
        "cast": feed.rounds,
        "format": sink.name,
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
