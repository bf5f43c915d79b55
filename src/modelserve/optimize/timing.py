"""Who is faster: all models in turn, in one process, so that a busy moment hits all of them.

round 1:  c a b     round 2:  b c a     ...      ratio of a round = original's time / candidate's time
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelserve.tensors import Array, Tensors

#: A timing shorter than this says more about the clock and the caller than about the model.
_SHORTEST_S = 0.002
_MOST_ROUNDS = 25


@dataclass(frozen=True, slots=True)
class Speed:
    """How many times as fast as the original: the median of the rounds, and a 95 % interval of that median."""

    ratio: float
    low: float
    high: float
    median_s: float

    def to_json(self) -> dict[str, float]:
        """Plain JSON."""
        return {"ratio": _short(self.ratio), "low": _short(self.low), "high": _short(self.high),
                "p50_ms": _short(self.median_s * 1e3)}  # fmt: skip


def race(
    original: Any, candidates: Mapping[str, Any], batch: Tensors, *, budget_s: float, fewest_rounds: int = 5
) -> dict[str, Speed]:
    """Time onnxruntime sessions on one batch against the original, in about `budget_s` seconds.

    Args:
        fewest_rounds: Also where that takes longer.
    """
    feed = dict(batch)
    sessions = {"": original, **candidates}
    once = {name: _warm(session, feed) for name, session in sessions.items()}
    repeats = {name: max(1, math.ceil(_SHORTEST_S / seconds)) for name, seconds in once.items()}
    a_round = sum(once[name] * repeats[name] for name in sessions)
    rounds = int(min(_MOST_ROUNDS, max(fewest_rounds, budget_s / a_round)))
    times: dict[str, list[float]] = {name: [] for name in sessions}
    random = np.random.default_rng(0)
    for _ in range(rounds):
        for name in random.permutation(list(sessions)):
            times[name].append(_time(sessions[name], feed, repeats[name]))
    return {name: _speed(np.array(times[""]), np.array(times[name])) for name in candidates}


def batch_of(tensors: Tensors, rows: int) -> dict[str, Array]:
    """So many rows, repeated where there are fewer."""
    return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in tensors.items()}


def _warm(session: Any, feed: Tensors) -> float:
    first = _time(session, feed, 1)
    # A slow model is warm after one run.
    seconds = first if first > 50 * _SHORTEST_S else min(_time(session, feed, 1), _time(session, feed, 1))
    return max(seconds, 1e-7)


def _time(session: Any, feed: Tensors, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        session.run(None, feed)
    return (time.perf_counter() - start) / repeats


def _speed(original: Array, candidate: Array) -> Speed:
    ratios = np.sort(original / candidate)
    low, high = _median_interval(ratios)
    return Speed(float(np.median(ratios)), low, high, float(np.median(candidate)))


def _median_interval(ordered: Sequence[float] | Array) -> tuple[float, float]:
    """The order statistics that hold the median with at least 95 % (all of them for fewer than 6 rounds)."""
    count = len(ordered)
    outside, below = 0.0, 0
    while True:
        outside += math.comb(count, below) / 2**count
        if 2 * outside > 0.05 or below >= (count - 1) // 2:
            break
        below += 1
    skipped = max(0, below - 1)
    return float(ordered[skipped]), float(ordered[count - 1 - skipped])


def _short(value: float) -> float:
    return float(f"{value:.4g}")
