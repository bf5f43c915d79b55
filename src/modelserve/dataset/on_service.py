"""The engine of the clouds: a place's own batch service answers the rows, and the answers become parts here.

    read, convert ──lines──► Job at the place ┄┄ followed, also by another process ┄┄► lines ──► parts

The rows are read twice: once to send what the model takes, once to put what is kept beside the answers. So that memory
stays bounded nothing is held in between.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from itertools import groupby
from typing import Any

from modelserve.backend import Endpoint, Job, JobState, JobStatus, Servable, WorkPart
from modelserve.dataset import row_lines
from modelserve.dataset.asking import Answered, Failure
from modelserve.dataset.batch_size import boundaries, input_bytes
from modelserve.dataset.feed import Fed
from modelserve.dataset.local import encoded, refusals
from modelserve.dataset.manifest import Entry
from modelserve.dataset.part import Part, PartRows
from modelserve.dataset.pieces import Boundaries, Piece, pieces
from modelserve.dataset.plan import Plan, identity
from modelserve.dataset.predictor import Predictor
from modelserve.dataset.report import Tally
from modelserve.errors import (
    BackendError,
    DeadlineError,
    DeploymentNotFoundError,
    NotSupportedError,
    by_code,
)

_BATCH_ROWS = 256
_SAMPLE_ROWS = 64
#: What a part holds as tensors; as text it is some times larger.
_PART_BYTES = 8 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GROWTH = 0.2, 15.0, 1.3
_LOOK_EVERY_S = 0.2


class ServiceEngine:
    """Hands the rows to the batch service of the place where the predictor runs."""

    def __init__(self, predictor: Predictor, servable: Servable | None) -> None:
        if not isinstance(predictor, Endpoint):
            raise NotSupportedError("engine='batch' takes a deployment. Use engine='local' for anything else.")
        self._endpoint: Endpoint = predictor
        self.about: Mapping[str, Any] = {"engine": "batch"}

    def check(self, plan: Plan) -> None:
        if not self._endpoint.rows_independent:
            raise NotSupportedError(
                "A batch service chooses which rows share a request, and this model's answers depend on all rows of "
                "one. Use engine='local'."
            )
        if plan.source.identity is None:
            raise NotSupportedError(
                "engine='batch' reads the rows twice, and these are gone once they are read. Write them to a file, or "
                "use engine='local'."
            )

    def boundaries(self, plan: Plan, batch_rows: int | None) -> Boundaries:
        """Parts small enough to be held as text."""
        sample = plan.source.head(plan.wanted, _SAMPLE_ROWS)
        row_bytes = max(input_bytes(plan.feed, sample), plan.shape.row_bytes)
        rows = batch_rows or max(1, min(_BATCH_ROWS, _PART_BYTES // row_bytes))
        return boundaries(rows, row_bytes, part_bytes=_PART_BYTES)

    def parts(
        self, plan: Plan, done: Mapping[int, Entry], *, start: int, tally: Tally, waiting: Callable[[], None]
    ) -> Generator[Part, None, None]:
        """As every engine's; the job is deleted when all of them were taken."""
        name, made = _job_name(self._endpoint.status().digest, plan), set(done)
        for attempt in range(2):
            tally.doing = "sending the rows"
            job: Job | None = None
            try:
                job = self._endpoint.batch(name, self._work(plan, made, start, tally, waiting))
                self._follow(job, tally, waiting)
                for part in self._collected(job, plan, made, start, tally):
                    made.add(part.number)
                    yield part
            except DeploymentNotFoundError:
                # Begun when more parts were there than now are, not answered whole, or taken away by another run of
                # the same work that was through with it: the rest is asked for anew.
                if attempt:
                    raise
                if job is not None:
                    job.delete()
                continue
            job.delete()
            return

    def _follow(self, job: Job, tally: Tally, waiting: Callable[[], None]) -> None:
        """Wait until the job is completed."""

        def tell(status: JobStatus) -> None:
            tally.doing = f"job {job.name}: {status.stage or status.state.value}"
            waiting()

        with tally.at_work("job"):
            status = follow(job, tell)
        tally.doing = ""
        if status.state is JobState.FAILED:
            job.delete()
            raise BackendError(
                f"Job {job.name!r} failed: {status.message or 'its place says no reason.'} Run again, or use "
                "engine='local' to ask the endpoint itself."
            )

    def _work(
        self, plan: Plan, done: Container[int], start: int, tally: Tally, waiting: Callable[[], None]
    ) -> Iterator[WorkPart]:
        """The rows of the missing parts, as far as they fit the model."""
        outputs = [spec.name for spec in plan.shape.outputs]
        for number, some in self._missing(plan, done, start):
            lines: list[bytes] = []
            for piece, fed in some:
                first = piece.start - number * plan.boundaries.part_rows
                for group in fed.groups:
                    lines += row_lines.written(group, number, first, outputs)
                tally.bytes_read += piece.rows.nbytes
            waiting()
            if lines:
                yield WorkPart(number, b"\n".join([*lines, b""]))

    def _collected(self, job: Job, plan: Plan, done: Container[int], start: int, tally: Tally) -> Iterator[Part]:
        for number, some in self._missing(plan, done, start):
            rows = PartRows(number, number * plan.boundaries.part_rows, plan.shape)
            answers: row_lines.Answers | None = None
            for piece, fed in some:
                sent = [row for group in fed.groups for row in group.positions.tolist()]
                if sent and answers is None:
                    with tally.at_work("collect"):
                        answers = row_lines.read(job.lines(number), number)
                failures = refusals(piece, fed)
                answered: list[Answered] = []
                if sent and answers is not None:
                    first = piece.start - rows.start
                    answered, failed = row_lines.gathered(answers, first, sorted(sent), plan.shape.outputs)
                    failures += [_of_a_row(failure) for failure in failed]
                before = len(rows.failures)
                rows.add(piece, answered, failures)
                tally.rows += piece.rows.num_rows
                tally.note_failures(rows.failures[before:])
            with tally.at_work("encode"):
                part = encoded(rows, plan)
            yield part

    def _missing(
        self, plan: Plan, done: Container[int], start: int
    ) -> Iterator[tuple[int, Iterator[tuple[Piece, Fed]]]]:
        """The batches of each part that is not there yet, as tensors."""
        chunks = plan.source.chunks(plan.wanted, start=start, chunk_rows=plan.chunk_rows)
        for number, some in groupby(pieces(chunks, plan.boundaries, start), lambda piece: piece.part):
            if number not in done:
                yield number, ((piece, plan.feed.tensors_of(piece.rows, piece.refused)) for piece in some)


def follow(job: Job, tell: Callable[[JobStatus], None]) -> JobStatus:
    """Wait until a job has ended, however long that takes; how it ended.

    Args:
        tell: Called now and then with how it is.
    """
    pause_s = _FIRST_PAUSE_S
    while (status := job.status()).state is JobState.RUNNING:
        end = time.monotonic() + pause_s
        while (left := end - time.monotonic()) > 0:
            tell(status)
            time.sleep(min(left, _LOOK_EVERY_S))
        pause_s = min(_LONGEST_PAUSE_S, pause_s * _GROWTH)
    return status


def _job_name(model: str, plan: Plan) -> str:
    """The same for the same work, also in another process."""
    content = {**identity(model, plan), "batch": plan.boundaries.batch_rows, "part": plan.boundaries.part_rows}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _of_a_row(failure: Failure) -> Failure:
    """A failure that is the row's own; what befell the model's place would befall it again."""
    kind = by_code(failure.code)
    if issubclass(kind, BackendError | DeadlineError):
        raise kind(f"The batch service could not answer: {failure.reason}")
    return failure
