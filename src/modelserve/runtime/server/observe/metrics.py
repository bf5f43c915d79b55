"""Prometheus metrics: counted by the requests themselves at next to no cost, written out when somebody scrapes.

Times in seconds, memory in bytes, counters end in `_total`. A run of the model may hold the rows of several requests:
`modelserve_rows_total / modelserve_runs_total` is the mean batch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.models.repository import Repository
from modelserve.runtime.server.models.served import ServedModel
from modelserve.runtime.server.models.statistics import BUCKETS_S, JOINED_BOUNDS, Durations
from modelserve.runtime.server.routes import Route

_MODEL = ("model", "version")


class Metrics:
    """Counts answers, and collects what models know of themselves.

    Args:
        connections: How many are open.
        is_ready: Whether requests should be sent.
    """

    def __init__(self, repository: Repository, connections: Callable[[], int], is_ready: Callable[[], bool]) -> None:
        self._repository = repository
        self._connections = connections
        self._is_ready = is_ready
        self._answers: Counter[tuple[str, str, int]] = Counter()
        self._durations: defaultdict[str, Durations] = defaultdict(Durations)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def answered(self, request: Request, response: Response, elapsed_ns: int) -> None:
        """Count one answer. Labels are routes, never paths: what clients make up must not become labels."""
        route: Route | None = request.route
        pattern, method = ("unknown", "unknown") if route is None else (route.pattern, route.method)
        self._answers[method, pattern, response.status] += 1
        self._durations[pattern].add(elapsed_ns)

    def write(self, accept: str) -> tuple[bytes, str]:
        """All metrics, and their media type: OpenMetrics where the scraper asks for it."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for at each scrape."""
        ready = GaugeMetricFamily("modelserve_ready", "Whether requests should be sent (1) or not (0).")
        ready.add_metric((), float(self._is_ready()))
        yield ready
        connections = GaugeMetricFamily("modelserve_connections", "Open connections.")
        connections.add_metric((), self._connections())
        yield connections
        yield from self._http()
        served = self._repository.served()
        yield from _requests(served)
        yield from _workers(served)

    def _http(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "modelserve_http_requests", "Answers by route and status.", labels=("method", "route", "status")
        )
        for (method, route, status), count in self._answers.items():
            answers.add_metric((method, route, str(status)), count)
        yield answers
        durations = HistogramMetricFamily(
            "modelserve_http_request_duration_seconds", "From a request's head to its answer.", labels=("route",)
        )
        for route, found in list(self._durations.items()):
            durations.add_metric((route,), *_written(found))
        yield durations


def _requests(models: Sequence[ServedModel]) -> Iterable[Metric]:
    requests = CounterMetricFamily(
        "modelserve_requests", "Requests that went to workers, by outcome.", labels=(*_MODEL, "code")
    )
    rows = CounterMetricFamily("modelserve_rows", "Rows that were answered.", labels=_MODEL)
    durations = HistogramMetricFamily(
        "modelserve_request_duration_seconds", "From the workers' queue to the answer in hand.", labels=_MODEL
    )
    queue = HistogramMetricFamily(
        "modelserve_queue_seconds", "From a request's arrival at the workers' queue until a run began.", labels=_MODEL
    )
    compute = HistogramMetricFamily(
        "modelserve_compute_seconds", "From the beginning of a request's run to its first answer.", labels=_MODEL
    )
    joined = HistogramMetricFamily(
        "modelserve_batch_requests", "Requests that shared a request's run, itself counted.", labels=_MODEL
    )
    inflight = GaugeMetricFamily("modelserve_inflight", "Requests under way.", labels=_MODEL)
    for served in models:
        labels, counts = (served.name, served.version), served.statistics
        requests.add_metric((*labels, "ok"), counts.succeeded)
        for code, count in counts.codes.items():
            requests.add_metric((*labels, code), count)
        rows.add_metric(labels, counts.rows)
        durations.add_metric(labels, *_written(counts.whole))
        queue.add_metric(labels, *_written(counts.queue))
        compute.add_metric(labels, *_written(counts.compute))
        joined.add_metric(labels, _cumulated(JOINED_BOUNDS, counts.joined), counts.joined_sum)
        inflight.add_metric(labels, served.inflight)
    return requests, rows, durations, queue, compute, joined, inflight


def _workers(models: Sequence[ServedModel]) -> Iterable[Metric]:
    workers = GaugeMetricFamily("modelserve_workers", "Worker processes by state.", labels=(*_MODEL, "state"))
    runs = CounterMetricFamily("modelserve_runs", "Runs of the model by the present workers.", labels=_MODEL)
    restarts = CounterMetricFamily("modelserve_worker_restarts", "Workers that died and were replaced.", labels=_MODEL)
    memory = GaugeMetricFamily(
        "modelserve_memory_bytes",
        "Memory of workers: their own, and once what they share.",
        labels=(*_MODEL, "kind"),
    )
    load = GaugeMetricFamily("modelserve_load_seconds", "Time until all workers had answered a warm-up.", labels=_MODEL)
    for served in models:
        labels, status = (served.name, served.version), served.status()
        for state, count in Counter(worker.stage.value for worker in status.workers).items():
            workers.add_metric((*labels, state), count)
        runs.add_metric(labels, sum(worker.runs for worker in status.workers))
        restarts.add_metric(labels, status.restarts)
        memory.add_metric((*labels, "private"), sum(worker.private_bytes or 0 for worker in status.workers))
        memory.add_metric((*labels, "shared"), max((worker.shared_bytes or 0 for worker in status.workers), default=0))
        load.add_metric(labels, served.loaded_s)
    return workers, runs, restarts, memory, load


def _written(found: Durations) -> tuple[list[tuple[str, float]], float]:
    """A histogram's buckets, and the sum in seconds."""
    return _cumulated(BUCKETS_S, found.buckets), found.sum_ns / 1e9


def _cumulated(bounds: Sequence[float], buckets: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip([*map(str, bounds), "+Inf"], map(float, accumulate(buckets)), strict=True))
