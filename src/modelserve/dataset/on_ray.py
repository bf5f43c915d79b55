"""The engine of many machines: Ray Data hands parts to actors, each of which holds the model.

    driver: parts that are missing ──Ray Data──► actor: read, convert, predict, encode ──► driver: commit

An actor reads a part's rows from the source by itself, so every machine must reach it. A part's bytes come back to the
driver, which alone writes into the folder: manifest, resume and bytes are those of the local engine.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import Any

import ray
import ray.data

from modelserve.backend import EndpointStatus, Limits, Reply, Request, Servable, State
from modelserve.bundle import Bundle, bundles_home
from modelserve.bundle.archive import pack, unpack
from modelserve.dataset.batch_size import found_boundaries
from modelserve.dataset.local import LocalEngine
from modelserve.dataset.manifest import Entry
from modelserve.dataset.part import Part
from modelserve.dataset.pieces import Boundaries
from modelserve.dataset.plan import Plan
from modelserve.dataset.predictor import Predictor
from modelserve.dataset.report import Tally
from modelserve.errors import ModelServeError, NotSupportedError
from modelserve.session import Session
from modelserve.wire import Message, decode, decode_error, encode_error, encode_reply, request_layout


class RayEngine:
    """Makes the parts on the machines of a Ray cluster: the one that is connected, or that RAY_ADDRESS names."""

    about: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, predictor: Predictor, servable: Servable | None) -> None:
        self._predictor = predictor
        self._name = predictor.name
        self._servable = servable

    def check(self, plan: Plan) -> None:
        if not isinstance(self._servable, Bundle):
            raise NotSupportedError(
                f"engine='ray' sends the model to other machines, and of {self._name!r} there is no bundle here. Serve "
                "a portable model with Model.serve(), or use engine='local'."
            )
        if plan.source.rows is None or plan.source.identity is None:
            raise NotSupportedError(
                "engine='ray' gives each machine rows by their numbers, and this source does not say how many it has. "
                "Give Parquet, Arrow, .npy or pictures, or use engine='local'."
            )

    def boundaries(self, plan: Plan, batch_rows: int | None) -> Boundaries:
        """As on one machine, so that the bytes are the same."""
        return found_boundaries(plan, self._predictor, batch_rows)

    def parts(
        self, plan: Plan, done: Mapping[int, Entry], *, start: int, tally: Tally, waiting: Callable[[], None]
    ) -> Generator[Part, None, None]:
        assert isinstance(self._servable, Bundle)
        assert plan.source.rows is not None
        count = -(-plan.source.rows // plan.boundaries.part_rows)
        missing = [{"part": index} for index in range(count) if index not in done]
        if not missing:
            return
        with _connected():
            for row in _answered(missing, self._servable, plan):
                yield _received(row, tally)
                waiting()


@contextmanager
def _connected() -> Iterator[None]:
    """A cluster: the caller's own, which goes on, or one that ends with the run."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        yield
    finally:
        ray.shutdown()


def _answered(missing: list[dict[str, int]], bundle: Bundle, plan: Plan) -> Iterator[dict[str, Any]]:
    packed = io.BytesIO()
    pack(bundle, packed)
    processors = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]  # Ray's own
    settings = ray.put(plan), ray.put(packed.getvalue()), bundle.digest
    parts = ray.data.from_items(missing, override_num_blocks=len(missing)).map(
        _Actor,  # type: ignore[arg-type]  # a class is made once in each actor, and called for each row
        fn_constructor_args=settings,
        concurrency=max(1, min(processors, len(missing))),
        num_cpus=1,
    )
    yield from parts.iter_rows()


def _received(row: Mapping[str, Any], tally: Tally) -> Part:
    """A part as an actor sent it, or the failure that it met."""
    if row["error"]:
        raise decode_error(row["error"])
    part = Part(row["part"], row["start"], row["rows"], row["failed"], row["content"], row["dead_letters"])
    tally.rows += part.rows
    tally.bytes_read += row["bytes_read"]
    tally.note_failures([json.loads(line) for line in part.dead_letters.splitlines()])
    tally.note_machine(row["machine"])
    tally.note_stages(json.loads(row["stages"]))
    return part


class _Actor:
    """Lives on some machine of the cluster, with a session of its own."""

    def __init__(self, plan: Any, packed: Any, digest: str) -> None:
        # As another process wrote it, into this machine's own home; the digest is compared with what arrived.
        place = bundles_home() / digest
        bundle = Bundle.open(place) if place.exists() else unpack(ray.get(packed), place)
        self._plan: Plan = ray.get(plan)
        self._engine = LocalEngine(_InProcess(bundle))
        self._machine = ray.get_runtime_context().get_node_id()

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        index = int(row["part"])
        tally = Tally()
        try:
            part = self._made(index, tally)
        except ModelServeError as error:
            part, failure = Part(index, 0, 0, 0, b"", b""), encode_error(error)
        else:
            failure = b""
        return {
            "part": index,
            "start": part.start,
            "rows": part.rows,
            "failed": part.failed,
            "content": bytes(part.content),
            "dead_letters": part.dead_letters,
            "bytes_read": tally.bytes_read,
            "stages": json.dumps(tally.stages),
            "machine": self._machine,
            "error": failure,
        }

    def _made(self, index: int, tally: Tally) -> Part:
        rows = self._plan.boundaries.part_rows
        start = index * rows
        parts = self._engine.parts(self._plan, {}, start=start, end=start + rows, tally=tally, waiting=_nothing)
        with closing(parts):
            return next(parts)


def _nothing() -> None:
    """Nobody looks while an actor works."""


class _InProcess:
    """A session as a predictor: an answer is there when its request has been submitted."""

    rows_independent: bool

    def __init__(self, bundle: Bundle) -> None:
        self._session = Session(bundle)
        self.name = bundle.digest
        self.signature = bundle.signature
        self.rows_independent = bundle.manifest.rows_independent
        self.limits = Limits(parallel=1)

    def submit(self, request: Request) -> _Answer:
        try:
            return _Answer(self._answered(request.message))
        except ModelServeError as error:
            return _Answer(error)

    def status(self) -> EndpointStatus:
        return EndpointStatus(self.name, "ray", State.READY, self.name, None)

    def _answered(self, message: Message) -> Reply:
        layout = request_layout(message.header)
        body = message.buffers[0] if len(message.buffers) == 1 else memoryview(b"".join(message.buffers))
        reply = encode_reply(self._session.run(decode(layout, body), layout.outputs))
        return Reply(reply.header, memoryview(b"".join(reply.buffers)))


class _Answer:
    """An answer that is there already, or the reason why there is none."""

    def __init__(self, found: Reply | ModelServeError) -> None:
        self._found = found

    def result(self) -> Reply:
        if isinstance(self._found, ModelServeError):
            raise self._found
        return self._found

    def done(self) -> bool:
        return True

    def __await__(self) -> Generator[Any, None, Reply]:
        yield from ()  # nobody has to wait
        return self.result()
