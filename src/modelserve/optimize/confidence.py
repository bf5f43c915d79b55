"""How sure a measured drop is, given as many rows as there are.

    one row right or wrong    paired: Tango's score interval; one-sided agreement: Clopper & Pearson's exact one
    one number a row          Student's interval, with one more row that is lost, so that it never has width zero
    one number for all rows   the jackknife over groups of rows, widened in the same way

None degenerates when nothing disagrees: n rows without a change still leave about 3/n. `alpha` is the chance that the
true drop lies above the upper limit; each limit is one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from modelserve.tensors import Array

ALPHA = 0.05
_BISECTIONS = 80


class Interval(NamedTuple):
    """A drop and its one-sided limits."""

    drop: float
    low: float
    high: float


def paired_counts(lost: int, won: int, rows: int, *, alpha: float = ALPHA) -> Interval:
    """The drop of a share: `lost` rows were right before, `won` are right now only.

    T. Tango, Statistics in Medicine 17 (1998), 891-908. With nothing won the drop is a plain share, and Clopper and
    Pearson's exact limit is taken, as the score's is up to 2 % too hopeful at counts near zero.
    """
    drop = (lost - won) / rows
    z = NormalDist().inv_cdf(1 - alpha)
    high = _tango_limit(lost, won, rows, z)
    low = -_tango_limit(won, lost, rows, z)
    if won == 0:
        high = max(high, exact_share_limit(lost, rows, alpha=alpha))
    return Interval(drop, low, high)


def exact_share_limit(count: int, rows: int, *, alpha: float = ALPHA) -> float:
    """The share above which at most `count` of `rows` are seen with a chance of `alpha` (Clopper & Pearson, 1934)."""
    if count >= rows:
        return 1.0
    return _bisect(lambda share: _binomial_cdf(count, rows, share) - alpha, count / rows, 1.0)


def mean(losses: Array, *, scale: float, alpha: float = ALPHA) -> Interval:
    """The mean of one loss for each row.

    Args:
        scale: What a row can lose at all; one more row is taken to have lost it where no row differs, and three times
            the worst that was seen otherwise.
    """
    worst = float(np.abs(losses).max(initial=0.0))
    pseudo = 3 * worst if worst > 0 else scale
    rows = len(losses)
    drop = float(losses.mean())
    t = student_quantile(1 - alpha, rows)
    upper, lower = np.append(losses, pseudo), np.append(losses, -pseudo)
    half_width = t * float(upper.std(ddof=1)) / math.sqrt(rows + 1)
    return Interval(
        drop,
        float(lower.mean()) - t * float(lower.std(ddof=1)) / math.sqrt(rows + 1),
        float(upper.mean()) + half_width,
    )


def whole(measure: Callable[[Array], float], rows: int, *, scale: float, alpha: float = ALPHA) -> Interval:
    """The drop of a metric of all rows together.

    Args:
        measure: The drop on these rows (indices).
        scale: What a row can move the metric by, times the number of rows; 1 for shares.
    """
    everything = np.arange(rows)
    drop = measure(everything)
    groups = np.array_split(np.random.default_rng(0).permutation(rows), min(rows, 40))
    without = np.array([measure(np.setdiff1d(everything, group)) for group in groups])
    count = len(groups)
    variance = (count - 1) / count * float(np.square(without - without.mean()).sum())
    error = math.sqrt(variance + (scale / rows) ** 2)
    t = student_quantile(1 - alpha, count - 1)
    return Interval(drop, drop - scale / rows - t * error, drop + scale / rows + t * error)


def rows_needed(max_drop: float, *, alpha: float = ALPHA) -> int:
    """How many rows it takes to show a share within `max_drop` if none of them changes."""
    return math.ceil(math.log(alpha) / math.log1p(-max_drop)) if 0 < max_drop < 1 else 1


def rows_to_decide(found: Interval, rows: int, max_drop: float) -> int | None:
    """About how many rows it takes to show that the drop is within `max_drop` if it stays as it is; None if never.

    The width of an interval falls with the root of the rows.
    """
    if not found.drop < max_drop:
        return None
    return math.ceil(rows * max(1.0, ((found.high - found.drop) / (max_drop - found.drop)) ** 2))


def student_quantile(share: float, freedom: int) -> float:
    """Student's t by its expansion about the normal (Abramowitz & Stegun 26.7.5); good from 5 degrees of freedom."""
    z = NormalDist().inv_cdf(share)
    freedom = max(freedom, 1)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _tango_limit(lost: int, won: int, rows: int, z: float) -> float:
    def excess(difference: float) -> float:
        linear = -lost - won + (2 * rows - lost + won) * difference
        product = -won * difference * (1 - difference)
        share = (math.sqrt(max(linear * linear - 8 * rows * product, 0.0)) - linear) / (4 * rows)
        variance = rows * (2 * share + difference * (1 - difference))
        return (lost - won - rows * difference) / math.sqrt(variance) + z if variance > 0 else z

    return _bisect(excess, (lost - won) / rows, 1.0)


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero; rounded up, which is the careful side."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return high


def _binomial_cdf(count: int, rows: int, share: float) -> float:
    if share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    successes = np.arange(count + 1)
    logarithms = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, rows + 1)))])
    terms = (
        logarithms[rows]
        - logarithms[successes]
        - logarithms[rows - successes]
        + successes * math.log(share)
        + (rows - successes) * math.log1p(-share)
    )
    return float(np.exp(terms).sum())
