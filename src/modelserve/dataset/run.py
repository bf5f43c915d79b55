"""A whole data set through anything that predicts.

source ──► batches ──► predictor ──► parts ──► folder
                                                 │ killed, or stopped: the same call goes on behind the last part
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelserve.backend import Servable
from modelserve.dataset.engine import Engine, load_engine
from modelserve.dataset.folder import Folder, check_same
from modelserve.dataset.manifest import Manifest
from modelserve.dataset.part import Part
from modelserve.dataset.pieces import Boundaries
from modelserve.dataset.plan import Plan, identity
from modelserve.dataset.predictor import Predictor
from modelserve.dataset.prepare import Options, planned
from modelserve.dataset.report import Progress, Report, Tally
from modelserve.dataset.sources.location import is_url
from modelserve.errors import InputError, ResumeError, SourceError, TooManyFailuresError

_TELL_EVERY_S = 0.2


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
    begun = time.perf_counter()
    if is_url(str(into)):
        raise InputError(f"Parts are written to a folder of this machine, got {str(into)!r}. Name a folder.")
    plan = planned(predictor, source, options)
    engine = load_engine(options.engine)(predictor, servable)
    engine.check(plan)
    with Folder(Path(into)) as folder:
        if options.restart:
            folder.restart()
        found = _manifest(folder, plan, predictor, engine, options.batch_rows)
        cut = Boundaries(int(found.identity["batch_rows"]), int(found.identity["part_rows"]))
        run = _Run(replace(plan, boundaries=cut), engine, predictor, folder, found, options, on_progress, begun)
        return run.through()


def _manifest(folder: Folder, plan: Plan, predictor: Predictor, engine: Engine, batch_rows: int | None) -> Manifest:
    """The manifest to go on with, or a new one."""
    about = {**identity(predictor.status().digest, plan), **engine.about}
    before = folder.manifest()
    if before is None:
        cut = engine.boundaries(plan, batch_rows)
        return Manifest({**about, "batch_rows": cut.batch_rows, "part_rows": cut.part_rows})
    asked = before.identity.get("batch_rows") if batch_rows is None else batch_rows
    check_same(
        folder.path, before.identity, {**about, "batch_rows": asked, "part_rows": before.identity.get("part_rows")}
    )
    return before


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
        begun: float,
    ) -> None:
        self._plan = plan
        self._engine = engine
        self._predictor = predictor
        self._folder = folder
        self._manifest = found
        self._options = options
        self._on_progress = on_progress
        self._tally = Tally()
        self._start = self._told = begun
        self._written = 0
        self._doing = ""

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
        self._manifest.entries[part.number] = entry
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
        if self._doing != self._tally.doing or time.perf_counter() - self._told > _TELL_EVERY_S:
            self._tell()

    def _tell(self, *, is_done: bool = False) -> None:
        self._told, self._doing = time.perf_counter(), self._tally.doing
        if self._on_progress is not None:
            self._on_progress(self._progress(is_done=is_done))

    def _progress(self, *, is_done: bool) -> Progress:
        elapsed_s = time.perf_counter() - self._start
        rows, total = self._resumed + self._tally.rows, self._plan.source.rows
        rate = self._tally.rows / elapsed_s if elapsed_s else 0.0
        eta_s = (total - rows) / rate if total is not None and rate else None
        workers = len(self._predictor.status().replicas)
        failures = self._resumed_failures + self._tally.failures
        return Progress(rows, total, failures, rate, elapsed_s, eta_s, workers, is_done, self._tally.doing)

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
