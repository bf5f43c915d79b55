"""From what the caller says to a plan; refused here is what makes no sense, before anything is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from modelserve.dataset.choice import Columns, choose, wanted
from modelserve.dataset.part import Shape
from modelserve.dataset.plan import Plan
from modelserve.dataset.predictor import Predictor
from modelserve.dataset.sink import sink
from modelserve.dataset.sources import Source, open_source
from modelserve.errors import InputError, SourceError
from modelserve.tensors import Signature


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is to be done; `Deployment.predict_dataset` says what each means."""

    columns: Columns | None = None
    keep: Sequence[str] | None = None
    outputs: Sequence[str] | None = None
    format: str = "parquet"
    batch_rows: int | None = None
    max_failures: int | None = 1000
    cast: bool = False
    restart: bool = False
    engine: str = "local"
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.batch_rows is not None and self.batch_rows < 1:
            raise InputError(f"batch_rows must be at least 1, got {self.batch_rows!r}.")
        if self.max_failures is not None and self.max_failures < 0:
            raise InputError(f"max_failures must be 0 or more, or None for no bound, got {self.max_failures!r}.")
        for name in ("keep", "outputs"):
            if isinstance(getattr(self, name), str):
                raise InputError(f"{name}= takes a list of names, got {getattr(self, name)!r}. Write {name}=[...].")


def planned(predictor: Predictor, source: Any, options: Options) -> Plan:
    """What is to be done; where batches end is not found yet.

    Raises:
        SourceError: there are no rows.
        SignatureError: columns or outputs do not fit the model.
    """
    opened = open_source(source)
    if opened.rows == 0:
        raise SourceError("The source has no rows. Give one that has some.")
    signature = predictor.signature
    keep = tuple(opened.keeps if options.keep is None else options.keep)
    feed = choose(opened, signature, options.columns, keep, cast=options.cast)
    shape = _shape(opened, signature, keep, options.outputs)
    return Plan(
        source=opened,
        feed=feed,
        wanted=wanted(opened, feed, keep),
        keep=keep,
        outputs=tuple(options.outputs or ()),
        shape=shape,
        sink=sink(options.format, shape),
        timeout_s=options.timeout_s,
    )


def _shape(source: Source, signature: Signature, keep: Sequence[str], outputs: Sequence[str] | None) -> Shape:
    names = [signature.primary] if outputs is None else list(outputs)
    if not names:
        raise InputError("outputs= takes at least one name, got none.")
    kept = pa.schema([source.schema.field(name) for name in keep])
    return Shape(kept, tuple(signature.output(name) for name in names))
