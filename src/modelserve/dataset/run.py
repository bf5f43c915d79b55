"""A whole data set through anything that predicts.

source ──► batches ──► predictor ──► parts ──► folder
                                                 │ killed, or stopped: the same call goes on behind the last part
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelserve.backend import Servable
from modelserve.dataset.asking import Asker
from modelserve.dataset.batch_size import boundaries, input_bytes, measure
from modelserve.dataset.choice import Columns, choose, wanted
from modelserve.dataset.engine import Engine, load_engine
from modelserve.dataset.feed import Feed
from modelserve.dataset.folder import Folder, check_same
from modelserve.dataset.local import under_way
from modelserve.dataset.manifest import Manifest
from modelserve.dataset.part import Part, Shape
from modelserve.dataset.pieces import Boundaries
from modelserve.dataset.plan import Plan, identity
from modelserve.dataset.predictor import Predictor
from modelserve.dataset.report import Progress, Report, Tally
from modelserve.dataset.sink import sink
from modelserve.dataset.sources import Source, Wanted, open_source
from modelserve.dataset.sources.location import is_url
from modelserve.errors import InputError, ResumeError, SourceError, TooManyFailuresError
from modelserve.tensors import Signature

_SAMPLE_ROWS = 8192
_TELL_EVERY_S = 0.2


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


def predict_dataset(
    predictor: Predictor,
    source: Any,
    into: str | Path,
    options: Options,
    *,
    servable: Servable | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Answer every row of a source, and write the answers into a folder; see `Deployment.predict_dataset`."""
    if is_url(str(into)):
        raise InputError(f"Parts are written to a folder of this machine, got {str(into)!r}. Name a folder.")
    opened = open_source(source)
    if opened.rows == 0:
        raise SourceError("The source has no rows. Give one that has some.")
    signature = predictor.signature
    keep = tuple(opened.keeps if options.keep is None else options.keep)
    feed = choose(opened, signature, options.columns, keep, cast=options.cast)
    reads = wanted(opened, feed, keep)
    shape = _shape(opened, signature, keep, options.outputs)
    chosen = sink(options.format, shape)
    engine = load_engine(options.engine)(predictor, servable)
    model = predictor.status().digest
    with Folder(Path(into)) as folder:
        if options.restart:
            folder.clear()
        sizes = _Sizes(predictor, opened, feed, reads, shape, options)
        before = folder.manifest()
        about = identity(model, opened, feed, keep, shape, chosen)
        found = _found(folder, before, about, sizes)
        plan = Plan(
            opened, feed, reads, keep, tuple(options.outputs or ()), shape, chosen, _read(found), options.timeout_s
        )
        engine.check(plan)
        run = _Run(plan, engine, predictor, folder, found, options, on_progress)
        return run.through()


class _Sizes:
    """Where batches and parts end; measured only where no earlier run has."""

    def __init__(
        self, predictor: Predictor, source: Source, feed: Feed, reads: Wanted, shape: Shape, options: Options
    ) -> None:
        self._predictor = predictor
        self._source = source
        self._feed = feed
        self._reads = reads
        self._shape = shape
        self._options = options

    def measured(self) -> Boundaries:
        sample = self._source.head(self._reads, _SAMPLE_ROWS)
        rows = self._fixed_rows() or self._quickest(sample)
        return boundaries(rows, max(input_bytes(self._feed, sample), self._shape.row_bytes))

    def _quickest(self, sample: Any) -> int:
        asker = Asker(self._predictor, self._options.outputs or (), self._options.timeout_s)
        return measure(self._predictor, asker, self._feed, sample, parallel=under_way(self._predictor))

    def _fixed_rows(self) -> int | None:
        """Rows of a batch where that is no matter of speed."""
        signature = self._feed.signature
        first = signature.inputs[0].shape[:1]
        if first and isinstance(first[0], int):
            return first[0]
        if not self._predictor.rows_independent and self._options.batch_rows is None:
            raise InputError(
                "This model's answers depend on all rows of a request together. Say how many rows belong together with "
                "batch_rows=."
            )
        return self._options.batch_rows


def _shape(source: Source, signature: Signature, keep: Sequence[str], outputs: Sequence[str] | None) -> Shape:
    import pyarrow as pa

    names = [signature.primary] if outputs is None else list(outputs)
    if not names:
        raise InputError("outputs= takes at least one name, got none.")
    kept = pa.schema([source.schema.field(name) for name in keep])
    return Shape(kept, tuple(signature.output(name) for name in names))


def _found(folder: Folder, before: Manifest | None, about: Mapping[str, Any], sizes: _Sizes) -> Manifest:
    """The manifest to go on with, or a new one."""
    if before is None:
        return Manifest({**about, **_as_json(sizes.measured())})
    asked = sizes._options.batch_rows  # noqa: SLF001  # of this module
    now = {**about, **{key: before.identity.get(key) for key in ("batch_rows", "part_rows")}}
    if asked is not None:
        now["batch_rows"] = asked
    check_same(folder.path, before.identity, now)
    return before


def _as_json(cut: Boundaries) -> dict[str, int]:
    return {"batch_rows": cut.batch_rows, "part_rows": cut.part_rows}


def _read(found: Manifest) -> Boundaries:
    return Boundaries(int(found.identity["batch_rows"]), int(found.identity["part_rows"]))


class _Run:
    """One run into one folder."""

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        predictor: Predictor,
        folder: Folder,
        found: Manifest,
        options: Options,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._plan = plan
        self._engine = engine
        self._predictor = predictor
        self._folder = folder
        self._manifest = found
        self._options = options
        self._on_progress = on_progress
        self._tally = Tally()
        self._start = self._told = time.perf_counter()
        self._written = 0

    def through(self) -> Report:
        """Make what is missing, and say what it came to."""
        self._folder.begin(self._manifest)
        self._resumed = self._manifest.rows
        self._resumed_failures = self._manifest.failed
        try:
            if not self._manifest.is_complete:
                self._make()
                self._folder.finish(self._manifest)
        except BaseException:
            if not self._manifest.entries:
                self._folder.clear()
            raise
        self._tell(is_done=True)
        report = self._report()
        self._folder.write_report(report.to_json())
        return report

    def _make(self) -> None:
        entries = self._manifest.entries
        parts = self._engine.parts(
            self._plan, dict(entries), start=self._first_missing(), tally=self._tally, waiting=self._look
        )
        with closing(parts):
            for part in parts:
                self._commit(part)
        if not entries:
            raise SourceError("The source has no rows. Give one that has some.")

    def _first_missing(self) -> int:
        """Where the first missing part begins; a stream is read from its start, to see that it is the same."""
        if self._plan.source.identity is None:
            return 0
        index, rows = 0, 0
        while index in self._manifest.entries:
            rows += self._manifest.entries[index].rows
            index += 1
        return rows

    def _commit(self, part: Part) -> None:
        self._check_model()
        with self._tally.at_work("write"):
            entry = self._folder.commit(part, self._plan.sink.suffix)
        self._manifest.entries[part.index] = entry
        self._written += int(entry.file["bytes"])
        self._look()

    def _check_model(self) -> None:
        """A part is one model's; an update while it was made would have mixed two."""
        digest = self._predictor.status().digest
        if digest != self._manifest.identity["model"]:
            raise ResumeError(
                f"The deployment was updated to another model ({digest[:12]}) during the run. Run again with "
                "restart=True (--restart), or serve the model of before."
            )

    def _check_failures(self) -> None:
        most, failed = self._options.max_failures, self._resumed_failures + self._tally.failures
        if most is not None and failed > most:
            raise TooManyFailuresError(
                f"{failed} rows failed, and max_failures is {most}. The first of this run: "
                f"{'; '.join(self._tally.first_failures)}. Mend them, or call again with a higher max_failures to go "
                f"on from the {len(self._manifest.entries)} parts that are there."
            )

    def _look(self) -> None:
        """Now and then, while parts are made."""
        self._check_failures()
        if time.perf_counter() - self._told > _TELL_EVERY_S:
            self._tell()

    def _tell(self, *, is_done: bool = False) -> None:
        self._told = time.perf_counter()
        if self._on_progress is not None:
            self._on_progress(self._progress(is_done=is_done))

    def _progress(self, *, is_done: bool) -> Progress:
        elapsed_s = time.perf_counter() - self._start
        rows, total = self._resumed + self._tally.rows, self._plan.source.rows
        rate = self._tally.rows / elapsed_s if elapsed_s else 0.0
        eta_s = (total - rows) / rate if total is not None and rate else None
        workers = len(self._predictor.status().replicas)
        failures = self._resumed_failures + self._tally.failures
        return Progress(rows, total, failures, rate, elapsed_s, eta_s, workers, is_done)

    def _report(self) -> Report:
        seconds = time.perf_counter() - self._start
        found = self._manifest
        return Report(
            folder=self._folder.path,
            rows=found.rows,
            failures=found.failed,
            parts=len(found.entries),
            seconds=seconds,
            rows_per_s=(found.rows - self._resumed) / seconds,
            resumed_rows=self._resumed,
            bytes_read=self._tally.bytes_read,
            bytes_written=self._written,
            batch_rows=self._plan.boundaries.batch_rows,
            part_rows=self._plan.boundaries.part_rows,
            engine=self._options.engine,
            machines=max(1, len(self._tally.machines)),
            stages={name: round(taken, 4) for name, taken in sorted(self._tally.stages.items())},
        )
