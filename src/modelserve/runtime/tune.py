"""How many workers of how many threads answer this model best here, by trying.

Every setting fits the processors that there are. All are asked in turns, several times, so that a busy moment of the
machine falls on all; the best rate wins, and among those nearly as good the one that takes fewest workers.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from modelserve import wire
from modelserve.bundle import Bundle
from modelserve.runtime import usage
from modelserve.runtime.cores import threads_wanted, usable_cores
from modelserve.runtime.pool import WorkerPool
from modelserve.runtime.settings import PoolSettings

_log = logging.getLogger(__name__)

_ROUNDS = 3
# Less than this apart, two settings are as good as each other.
_NEARLY = 0.95
_CALLERS_PER_CORE = 4


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """So many workers, each with so many threads within an operation, each pinned to processors of its own or not."""

    workers: int
    threads: int = 1
    pin: bool = False

    def __str__(self) -> str:
        text = f"{self.workers} worker{'s' * (self.workers > 1)} of {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{text}, pinned" if self.pin else text


@dataclass(frozen=True, slots=True)
class Choice:
    """The setting that was chosen, and what each was measured to answer (requests per second)."""

    setting: Setting
    rates: Mapping[Setting, float]

    def applied_to(self, settings: PoolSettings) -> PoolSettings:
        return replace(settings, threads=self.setting.threads, pin=self.setting.pin)

    @property
    def reason(self) -> str:
        """In a sentence."""
        others = [f"{rate:,.0f} with {setting}" for setting, rate in self.rates.items() if setting != self.setting]
        against = f", against {'; '.join(others)}" if others else ""
        return f"{self.setting}: {self.rates[self.setting]:,.0f} requests/s{against}."


def choose(bundle: Bundle, settings: PoolSettings, *, budget_s: float = 2.0) -> Choice:
    """Try the settings that fit this machine, for about `budget_s` seconds beside loading the model.

    Raises:
        WorkerStartError, ModelServeError: the model does not load or does not answer its example.
    """
    candidates = settings_to_try(usable_cores(), threads_wanted())
    request, rows = _request(bundle)
    rates: dict[Setting, list[float]] = {candidate: [] for candidate in candidates}
    # All at once where memory allows, so that they can be asked in turns; else one after the other.
    fits = bundle.size_bytes * 2 * len(candidates) < usage.memory_limit_bytes() // 2
    rounds = _ROUNDS if fits else 1
    with _Pools(bundle, settings, keep=fits) as pools:
        for _ in range(rounds):
            for candidate in candidates:
                pool = pools.of(candidate)
                rates[candidate].append(_rate(pool, request, rows, budget_s / rounds / len(candidates)))
    choice = best({candidate: statistics.median(found) for candidate, found in rates.items()})
    _log.info("Chose %s", choice.reason)
    return choice


def settings_to_try(cores: int, threads: int | None) -> list[Setting]:
    """Workers times threads never exceeds `cores`; `threads` is given where the user has fixed them."""
    if threads is not None:
        found = [Setting(workers, threads) for workers in _halvings(max(1, cores // threads))]
    else:
        found = [Setting(1)]
        for each in _halvings(cores):
            found.append(Setting(max(1, cores // each), each))
    if cores > 1 and hasattr(os, "sched_setaffinity"):
        found.append(replace(max(found), pin=True))
    return sorted(set(found))


def best(rates: Mapping[Setting, float]) -> Choice:
    """The fastest, or what is nearly as fast with fewer workers, fewer threads, unpinned."""
    enough = _NEARLY * max(rates.values())
    return Choice(min(setting for setting, rate in rates.items() if rate >= enough), dict(rates))


class _Pools(ExitStack):
    """A pool for each kind of worker that is tried."""

    def __init__(self, bundle: Bundle, settings: PoolSettings, *, keep: bool) -> None:
        super().__init__()
        self._bundle = bundle
        self._settings = settings
        self._keep = keep
        self._pools: dict[tuple[int, bool], WorkerPool] = {}

    def of(self, setting: Setting) -> WorkerPool:
        kind = (setting.threads, setting.pin)
        pool = self._pools.get(kind)
        if pool is None:
            if not self._keep:
                self.close()
                self._pools.clear()
            own = replace(self._settings, threads=setting.threads, pin=setting.pin)
            self._pools[kind] = pool = WorkerPool(self._bundle, workers=setting.workers, settings=own)
            self.callback(pool.close)
        pool.scale(setting.workers)
        return pool


def _halvings(count: int) -> Sequence[int]:
    found = []
    while count:
        found.append(count)
        count //= 2
    return found


def _request(bundle: Bundle) -> tuple[wire.Message, int]:
    """One row of the example, or the whole of it where rows belong together."""
    example = bundle.example()
    if bundle.signature.is_batched and bundle.rows_independent:
        example = {name: np.ascontiguousarray(array[:1]) for name, array in example.items()}
    first = next(iter(example.values()))
    return wire.encode_request(example), len(first) if first.ndim else 1


def _rate(pool: WorkerPool, request: wire.Message, rows: int, seconds: float) -> float:
    """Requests per second, some always under way."""
    depth = _CALLERS_PER_CORE * usable_cores()
    pool.submit(request, rows).result()
    under_way = deque(pool.submit(request, rows) for _ in range(depth))
    answered = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        under_way.popleft().result()
        answered += 1
        under_way.append(pool.submit(request, rows))
    rate = answered / (time.perf_counter() - start)
    for one in under_way:
        one.result()
    return rate
