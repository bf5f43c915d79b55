"""What "worse" means: the drop of a metric from the original's answers to a candidate's, on the same rows.

accuracy agreement    a row is right or wrong        paired counts
cosine mae            a row has a number             mean of the differences
f1 roc_auc rmse, own  all rows together              jackknife
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelserve.errors import PlanError
from modelserve.optimize import confidence
from modelserve.optimize.confidence import ALPHA, Interval
from modelserve.tensors import Array, Signature

#: What a model answered: every output by name.
Answers = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Metric:
    """Measures drops.

    Attributes:
        is_share: Whether its unit is the share of rows, so that the rows needed can be told beforehand.
        value: The metric of answers against the truth; used where both are at hand, for the report.
        compare: (truth, reference, candidate, alpha) -> the drop with its limits.
    """

    name: str
    is_share: bool
    value: Callable[[Array, Answers], float] = field(repr=False)
    compare: Callable[[Array, Answers, Answers, float], Interval] = field(repr=False)

    def drop(self, truth: Array, reference: Answers, candidate: Answers, *, alpha: float = ALPHA) -> Interval:
        """How much worse the candidate is, with one-sided limits."""
        return self.compare(truth, reference, candidate, alpha)


def metric_for(asked: str | Callable[[Any, Any], float] | None, signature: Signature, *, has_labels: bool) -> Metric:
    """The metric that was asked for, or the usual one for this model.

    Raises:
        PlanError: it is unknown, or needs labels that are not there.
    """
    primary = signature.primary
    if callable(asked):
        return _whole(getattr(asked, "__name__", "callable"), _own(asked, primary), higher_is_better=True)
    name = asked if asked is not None else _usual(signature, has_labels=has_labels)
    if name in {"cosine", "agreement", "deviation"}:
        if has_labels and asked is not None:
            raise PlanError(f"{name!r} compares with the original's own answers. Leave the labels out of data=.")
        return _UNLABELLED[name](primary)
    if name not in _LABELLED:
        known = ", ".join(sorted({*_LABELLED, "cosine", "agreement"}))
        raise PlanError(f"There is no metric {name!r}. Use {known}, or a callable (truth, answers) -> float.")
    if not has_labels:
        raise PlanError(f"{name!r} needs labels. Give data=(inputs, labels), or leave metric= out.")
    return _LABELLED[name](primary)


def decisions(answer: Array) -> Array:
    """The class of each row: the answer itself, the larger of scores, or the sign of a probability."""
    if answer.dtype.kind != "f":
        return answer.reshape(len(answer))
    if answer.ndim == 2 and answer.shape[1] > 1:
        return np.asarray(answer.argmax(axis=1))
    return (answer.reshape(len(answer)) > 0.5).astype(np.int64)


def scores(answers: Answers, primary: str) -> Array:
    """The rows' scores: the primary output where it is of floats, else the first that is."""
    ordered = [answers[primary], *(array for name, array in answers.items() if name != primary)]
    found = next((array for array in ordered if array.dtype.kind == "f"), None)
    if found is None:
        raise PlanError("'roc_auc' needs scores, of which this model gives none. Use 'accuracy' or 'f1'.")
    return found


def _usual(signature: Signature, *, has_labels: bool) -> str:
    output = signature.output(signature.primary)
    decides = output.dtype in {"int64", "int32", "string", "bool"} or _has_classes(output.shape)
    if has_labels:
        return "accuracy" if decides else "rmse"
    return "agreement" if decides else "deviation"


def _has_classes(shape: tuple[int | str, ...]) -> bool:
    return len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 1


def _accuracy(primary: str) -> Metric:
    def right(truth: Array, answers: Answers) -> Array:
        return np.asarray(decisions(answers[primary]) == truth)

    def compare(truth: Array, reference: Answers, candidate: Answers, alpha: float) -> Interval:
        before, after = right(truth, reference), right(truth, candidate)
        return confidence.paired_counts(
            int((before & ~after).sum()), int((after & ~before).sum()), len(truth), alpha=alpha
        )

    return Metric("accuracy", True, lambda truth, answers: float(right(truth, answers).mean()), compare)


def _agreement(primary: str) -> Metric:
    def compare(_truth: Array, reference: Answers, candidate: Answers, alpha: float) -> Interval:
        changed = decisions(reference[primary]) != decisions(candidate[primary])
        return confidence.paired_counts(int(changed.sum()), 0, len(changed), alpha=alpha)

    return Metric("agreement", True, lambda truth, answers: 1.0, compare)


def _row_metric(
    name: str, loss: Callable[[Array, Array], Array], primary: str, *, perfect: float = 0.0, against_truth: bool = False
) -> Metric:
    def compare(truth: Array, reference: Answers, candidate: Answers, alpha: float) -> Interval:
        if not against_truth:
            losses = loss(reference[primary], candidate[primary])
            return confidence.mean(losses, scale=1.0, alpha=alpha)
        before, after = loss(truth, reference[primary]), loss(truth, candidate[primary])
        return confidence.mean(after - before, scale=float(before.max(initial=0.0)) or 1.0, alpha=alpha)

    def value(truth: Array, answers: Answers) -> float:
        return float(loss(truth, answers[primary]).mean()) if against_truth else perfect

    return Metric(name, False, value, compare)


def _cosine_loss(reference: Array, candidate: Array) -> Array:
    before = reference.reshape(len(reference), -1).astype(np.float64)
    after = candidate.reshape(len(candidate), -1).astype(np.float64)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return np.asarray(1 - (before * after).sum(axis=1) / np.maximum(lengths, 1e-300))


def _deviation_loss(reference: Array, candidate: Array) -> Array:
    before = reference.reshape(len(reference), -1).astype(np.float64)
    spread = float(before.std()) or 1.0
    return np.asarray(np.abs(before - candidate.reshape(len(candidate), -1)).mean(axis=1) / spread)


def _absolute_error(truth: Array, answer: Array) -> Array:
    return np.asarray(np.abs(_column(answer) - _column(truth)).mean(axis=1))


def _rmse(primary: str) -> Metric:
    def rmse(truth: Array, answers: Answers) -> float:
        return math.sqrt(float(np.square(_column(answers[primary]) - _column(truth)).mean()))

    return _whole("rmse", rmse, higher_is_better=False)


def _f1(primary: str) -> Metric:
    def f1(truth: Array, answers: Answers) -> float:
        decided = decisions(answers[primary])
        found = []
        for label in np.unique(truth):
            both = int(((decided == label) & (truth == label)).sum())
            either = int((decided == label).sum() + (truth == label).sum())
            found.append(2 * both / either)
        return float(np.mean(found))

    return _whole("f1", f1, higher_is_better=True)


def _roc_auc(primary: str) -> Metric:
    def roc_auc(truth: Array, answers: Answers) -> float:
        given = scores(answers, primary)
        labels = np.unique(truth)
        if len(labels) < 2:
            return math.nan
        if given.ndim == 1 or given.shape[1] <= 2:
            return _area(truth == labels[1], given.reshape(len(given), -1)[:, -1])
        return float(np.mean([_area(truth == label, given[:, index]) for index, label in enumerate(labels)]))

    return _whole("roc_auc", roc_auc, higher_is_better=True)


def _area(positive: Array, score: Array) -> float:
    """Mann and Whitney's statistic, ties counted as one half."""
    values, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not (len(values) and ones and zeros):
        return math.nan
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _own(function: Callable[[Any, Any], float], primary: str) -> Callable[[Array, Answers], float]:
    def value(truth: Array, answers: Answers) -> float:
        try:
            return float(function(truth, answers[primary]))
        except Exception as error:  # the user's own function may raise anything
            name = getattr(function, "__name__", "callable")
            raise PlanError(
                f"The metric {name!r} failed on {len(truth)} rows: {type(error).__name__}: {error}. It is called with "
                "(truth, answers) of all rows and of parts of them, and answers one number."
            ) from error

    return value


def _whole(name: str, value: Callable[[Array, Answers], float], *, higher_is_better: bool) -> Metric:
    sign = 1.0 if higher_is_better else -1.0

    def compare(truth: Array, reference: Answers, candidate: Answers, alpha: float) -> Interval:
        def drop(rows: Array) -> float:
            before, after = take(reference, rows), take(candidate, rows)
            return sign * (value(truth[rows], before) - value(truth[rows], after))

        scale = 1.0 if higher_is_better else abs(value(truth, reference)) or 1.0
        return confidence.whole(drop, len(truth), scale=scale, alpha=alpha)

    return Metric(name, False, value, compare)


def take(answers: Answers, rows: Array) -> dict[str, Array]:
    """The answers of these rows."""
    return {name: array[rows] for name, array in answers.items()}


def _column(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float64)


_LABELLED: dict[str, Callable[[str], Metric]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "roc_auc": _roc_auc,
    "rmse": _rmse,
    "mae": lambda primary: _row_metric("mae", _absolute_error, primary, against_truth=True),
}
_UNLABELLED: dict[str, Callable[[str], Metric]] = {
    "agreement": _agreement,
    "cosine": lambda primary: _row_metric("cosine", _cosine_loss, primary, perfect=1.0),
    "deviation": lambda primary: _row_metric("deviation", _deviation_loss, primary),
}
