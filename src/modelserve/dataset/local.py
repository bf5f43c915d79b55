"""The engine of one machine: stages that overlap, each with a thread of its own and a bounded queue behind it.

    read ──► cut, convert, send ──► wait, gather ──► encode, write (the caller's thread)
        2 chunks          requests under way      1 part

A queue that is full stops the stage before it, so memory is bounded whatever the source's size, and the slowest stage
sets the pace.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import takewhile
from types import MappingProxyType
from typing import Any, NamedTuple

from modelserve.backend import Servable
from modelserve.dataset.ahead import Ahead
from modelserve.dataset.asking import Asked, Asker, Failure
from modelserve.dataset.batch_size import found_boundaries
from modelserve.dataset.feed import Fed
from modelserve.dataset.manifest import Entry
from modelserve.dataset.part import Part, PartRows
from modelserve.dataset.pieces import Boundaries, Piece, pieces
from modelserve.dataset.plan import Plan
from modelserve.dataset.predictor import Predictor, under_way
from modelserve.dataset.report import Tally
from modelserve.dataset.sources import Chunk
from modelserve.dataset.sources.memory import content_of
from modelserve.errors import ResumeError, SignatureError

_CHUNKS_AHEAD = 4
_PARTS_AHEAD = 1
_CORES = os.cpu_count() or 1
#: The code of rows that could not be read at all.
UNREADABLE = "source"


class Sent(NamedTuple):
    """A batch whose requests are under way."""

    piece: Piece
    asked: list[Asked]
    failures: list[Failure]


class LocalEngine:
    """Sends the data set through the predictor from this process."""

    about: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, predictor: Predictor, servable: Servable | None = None) -> None:
        self._predictor = predictor

    def check(self, plan: Plan) -> None:
        """Anything that can be read here can be done here."""

    def boundaries(self, plan: Plan, batch_rows: int | None) -> Boundaries:
        """As it is quickest, by a short measurement."""
        return found_boundaries(plan, self._predictor, batch_rows)

    def parts(
        self,
        plan: Plan,
        done: Mapping[int, Entry],
        *,
        start: int,
        tally: Tally,
        waiting: Callable[[], None],
        end: int | None = None,
    ) -> Generator[Part, None, None]:
        """As every engine's; the rows from number `end` on are left out."""
        asker = Asker(self._predictor, plan.outputs, plan.timeout_s)
        chunks = _timed(plan.source.chunks(plan.wanted, start=start, chunk_rows=plan.chunk_rows), tally)
        with Ahead(chunks, _CHUNKS_AHEAD) as read:
            found = _missing(_before(end, pieces(read, plan.boundaries, start)), done)
            fed = _fed(found, plan, tally)
            with Ahead(_sent(fed, asker, tally), under_way(self._predictor)) as sent:
                gathered = _gathered(sent, plan, asker, tally)
                with Ahead(gathered, _PARTS_AHEAD, waiting) as rows:
                    for part in rows:
                        with tally.at_work("encode"):
                            made = encoded(part, plan)
                        yield made


def _timed(chunks: Iterator[Chunk], tally: Tally) -> Iterator[Chunk]:
    while True:
        with tally.at_work("read"):
            chunk = next(chunks, None)
        if chunk is None:
            return
        tally.bytes_read += chunk.rows.nbytes
        yield chunk


def _before(end: int | None, found: Iterator[Piece]) -> Iterator[Piece]:
    return found if end is None else takewhile(lambda piece: piece.start < end, found)


def _missing(found: Iterable[Piece], done: Mapping[int, Entry]) -> Iterator[Piece]:
    """The batches of parts that are not there yet; those of a stream are looked through, to see that it is the same."""
    seen = hashlib.sha256()
    rows = 0
    for piece in found:
        entry = done.get(piece.part)
        if entry is None:
            yield piece
        elif entry.read:
            seen.update(content_of(piece.rows))
            rows += piece.rows.num_rows
            if rows >= entry.rows:
                _check_read(entry, seen.hexdigest())
                seen, rows = hashlib.sha256(), 0


def _check_read(entry: Entry, digest: str) -> None:
    if digest != entry.read:
        raise ResumeError(
            f"The rows of part {entry.part} are not those of the run before. Give the same rows, name another folder, "
            "or give restart=True (--restart)."
        )


def _fed(found: Iterable[Piece], plan: Plan, tally: Tally) -> Iterator[tuple[Piece, Fed]]:
    """Batches as tensors, in order; pictures of several batches are decoded at once."""

    def convert(piece: Piece) -> Fed:
        with tally.at_work("convert"):
            return plan.feed.tensors_of(piece.rows, piece.refused)

    if not plan.feed.decodes:
        yield from ((piece, convert(piece)) for piece in found)
        return
    with ThreadPoolExecutor(_CORES, thread_name_prefix="modelserve-dataset") as threads:
        waiting: deque[tuple[Piece, Future[Fed]]] = deque()
        for piece in found:
            waiting.append((piece, threads.submit(convert, piece)))
            if len(waiting) > _CORES:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _sent(fed_pieces: Iterable[tuple[Piece, Fed]], asker: Asker, tally: Tally) -> Iterator[Sent]:
    for piece, fed in fed_pieces:
        failures = refusals(piece, fed)
        with tally.at_work("send"):
            asked = [asker.ask(group) for group in fed.groups]
        yield Sent(piece, asked, failures)


def refusals(piece: Piece, fed: Fed) -> list[Failure]:
    """The rows of a batch that cannot be asked about."""
    return [
        Failure(row, UNREADABLE if row in piece.refused else SignatureError.code, why)
        for row, why in fed.refused.items()
    ]


def _gathered(sent: Iterable[Sent], plan: Plan, asker: Asker, tally: Tally) -> Iterator[PartRows]:
    """The answers, in the order of the rows, a part at a time."""
    part: PartRows | None = None
    for one in sent:
        if part is None:
            part = PartRows(one.piece.part, one.piece.start, plan.shape, is_hashed=plan.source.identity is None)
        answered, failures = [], list(one.failures)
        with tally.at_work("predict"):
            for asked in one.asked:
                found, failed = asker.answers(asked)
                answered += found
                failures += failed
        before = len(part.failures)
        with tally.at_work("gather"):
            part.add(one.piece, answered, failures)
        tally.rows += one.piece.rows.num_rows
        tally.note_failures(part.failures[before:])
        if part.rows == plan.boundaries.part_rows:
            yield part
            part = None
    if part is not None:
        yield part


def encoded(part: PartRows, plan: Plan) -> Part:
    """A part as its file's bytes."""
    content = plan.sink.encode(part.table())
    return Part(part.number, part.start, part.rows, len(part.failures), content, part.dead_letters(), part.read_digest)
