"""One batch prediction job at work, as the service does it.

    input lines ──batches──► containers ──► prediction.results-00000-of-0000N       one file a replica
                                 │ three tries
                                 └────────► prediction.errors_stats-00000-of-00001  ('why', how many)

A line of results is {"instance": what was sent, "prediction": what came back}; rows come in no particular order.
"""

from __future__ import annotations

import fnmatch
import json
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from google.api_core import exceptions as google_errors

from modelserve.standin.faults import Failing, Fault
from modelserve.standin.fleet import Fleet
from modelserve_vertex.rehearsal.storage import Objects

_DEFAULT_BATCH = 64
_TRIES = 3
_TIMEOUT_S = 60.0


class _NoAnswerError(Exception):
    """A batch that stays without predictions, in the service's words."""


class Scoring:
    """Sends the rows of one job to its containers.

    Args:
        path: The containers' route for predictions.
        meet: What a request to a container meets instead of it.
        is_wanted: Whether nobody has cancelled the job.

    Attributes:
        answered: Rows that have a prediction.
        errors: Why rows have none, and how many.
    """

    def __init__(
        self,
        objects: Objects,
        fleet: Fleet,
        path: str,
        *,
        meet: Callable[[], Fault | None],
        is_wanted: Callable[[], bool],
    ) -> None:
        self._objects = objects
        self._fleet = fleet
        self._path = path
        self._meet = meet
        self._is_wanted = is_wanted
        self._lock = threading.Lock()
        self.answered = 0
        self.errors: Counter[str] = Counter()

    def run(self, job: Any, directory: str) -> None:
        """Answer all rows, and write what came of them below `directory`.

        Raises:
            InvalidArgument: there is no input, or a line of it is no JSON.
        """
        batches: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        for batch in self._batches(job):
            batches.put(batch)
        if batches.empty():
            raise google_errors.InvalidArgument(f"No instances were found in {list(job.input_config.gcs_source.uris)}.")
        replicas = max(1, job.dedicated_resources.starting_replica_count)
        files = [bytearray() for _ in range(replicas)]
        threads = [threading.Thread(target=self._answer_all, args=(batches, file)) for file in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, file in enumerate(files):
            self._write(f"{directory}/prediction.results-{number:05}-of-{replicas:05}", bytes(file))
        told = "".join(f"{entry!r}\n" for entry in self.errors.items())
        self._write(f"{directory}/prediction.errors_stats-00000-of-00001", told.encode())

    def _batches(self, job: Any) -> Iterator[list[Any]]:
        size = job.manual_batch_tuning_parameters.batch_size or _DEFAULT_BATCH
        for content in self._inputs(job):
            try:
                instances = [json.loads(line) for line in content.splitlines() if line.strip()]
            except ValueError as error:
                raise google_errors.InvalidArgument(f"The input is not JSON lines: {error}") from error
            for start in range(0, len(instances), size):
                yield instances[start : start + size]

    def _inputs(self, job: Any) -> Iterator[bytes]:
        for uri in job.input_config.gcs_source.uris:
            bucket, _, pattern = uri.removeprefix("gs://").partition("/")
            for name in self._objects.names(bucket):
                stored = self._objects.find(bucket, name) if fnmatch.fnmatchcase(name, pattern) else None
                if stored is not None:
                    yield stored.path.read_bytes()

    def _answer_all(self, batches: queue.SimpleQueue[list[Any]], into: bytearray) -> None:
        """As one replica: batch after batch until none is left."""
        while self._is_wanted():
            try:
                instances = batches.get_nowait()
            except queue.Empty:
                return
            try:
                predictions = self._predictions(instances)
            except _NoAnswerError as error:
                with self._lock:
                    self.errors[f"Post request fails. Cannot get predictions. Error: {error}"] += len(instances)
                continue
            for instance, prediction in zip(instances, predictions, strict=True):
                into += json.dumps({"instance": instance, "prediction": prediction}).encode() + b"\n"
            with self._lock:
                self.answered += len(instances)

    def _predictions(self, instances: list[Any]) -> list[Any]:
        body = json.dumps({"instances": instances}).encode()
        status, content = 0, b""
        for _ in range(_TRIES):
            status, content = self._asked(body)
            if status == 200:
                break
        if status != 200:
            raise _NoAnswerError(f"Exceeded retries: Non-OK result {status} ({content.decode(errors='replace')})")
        found = json.loads(content).get("predictions")
        if not isinstance(found, list) or len(found) != len(instances):
            raise _NoAnswerError(f"Predictions are not in the response. Got: {content.decode(errors='replace')}")
        return found

    def _asked(self, body: bytes) -> tuple[int, bytes]:
        fault = self._meet()
        if isinstance(fault, Failing):
            return fault.status, fault.message.encode()
        try:
            answered = self._fleet.forward("POST", self._path, {"content-type": "application/json"}, body, _TIMEOUT_S)
        except httpx.HTTPError as error:
            return 503, str(error).encode()
        return answered.status, answered.body

    def _write(self, uri: str, content: bytes) -> None:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        self._objects.put(bucket, name, content)
