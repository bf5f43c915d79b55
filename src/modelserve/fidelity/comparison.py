"""Two models asked the same, sample by sample."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from modelserve.errors import ModelServeError
from modelserve.fidelity.report import FidelityReport, OutputFidelity, Tolerance, row_scale, wilson_interval
from modelserve.tensors import Array, Tensors

Answer: TypeAlias = Callable[[Tensors], Mapping[str, Array]]

_VALUES_SHOWN = 6


class Sample(NamedTuple):
    """Inputs to try. `origin` says where they come from; `probes` marks values that a model may well not take."""

    origin: str
    tensors: Tensors
    probes: bool = False


class _Finding(NamedTuple):
    """Why not faithful. The gravest is told, of several the one with the largest `excess`."""

    gravity: int
    excess: float
    reason: str
    sample: Sample
    row: int


class Comparison:
    """What was found so far; samples may be added as long as one likes.

    Args:
        decisions: Outputs whose values must be equal, not close.
    """

    def __init__(
        self,
        reference: Answer,
        candidate: Answer,
        *,
        tolerance: Tolerance,
        decisions: frozenset[str] = frozenset(),
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self._reference, self._candidate = reference, candidate
        self._tolerance, self._decisions = tolerance, decisions
        self._versions = dict(versions or {})
        self._seconds = 0.0
        self._rows = self._refused_rows = 0
        self._tried: dict[str, int] = {}
        self._outputs: dict[str, OutputFidelity] = {}
        self._digest = hashlib.sha256()
        self._worst: _Finding | None = None

    @property
    def worst(self) -> tuple[Tensors, int] | None:
        """The inputs with the gravest difference, and the row in them; None where all is well."""
        return None if self._worst is None else (self._worst.sample.tensors, self._worst.row)

    def add(self, sample: Sample) -> bool:
        """Ask both; where the reference raises, the sample is left out and counted, and the answer is False."""
        start = time.perf_counter()
        answered = self._add(sample)
        self._seconds += time.perf_counter() - start
        return answered

    def report(self) -> FidelityReport:
        """The report so far; its verdict is in `is_faithful` and `reason`."""
        return FidelityReport(
            outputs=tuple(self._outputs.values()),
            rows=self._rows,
            refused_rows=self._refused_rows,
            tried=dict(self._tried),
            samples_digest=self._digest.hexdigest(),
            tolerance=self._tolerance,
            seconds=round(self._seconds, 4),
            reason=self._verdict(),
            versions=self._versions,
        )

    def _add(self, sample: Sample) -> bool:
        _digest(self._digest, sample.tensors)
        first = next(iter(sample.tensors.values()))
        rows = first.shape[0] if first.ndim else 1
        try:
            wanted = self._reference(sample.tensors)
        except Exception:  # noqa: BLE001  # a source refuses inputs by any exception; that is counted, not hidden
            self._refused_rows += rows
            return False
        self._rows += rows
        self._tried[sample.origin] = self._tried.get(sample.origin, 0) + rows
        self._ask_candidate(sample, wanted)
        return True

    def _verdict(self) -> str:
        if self._worst is not None:
            return self._worst.reason
        return "" if self._rows else "The source refused every input that was tried, the example among them."

    def _ask_candidate(self, sample: Sample, wanted: Mapping[str, Array]) -> None:
        lenient = sample.probes and not all(_is_finite(array) for array in wanted.values())
        try:
            got = self._candidate(sample.tensors)
        except ModelServeError as error:
            if not lenient:
                reason = f"It cannot answer the rows from {sample.origin!r}, which the source can: {error}"
                self._refuse(_Finding(3, 0.0, reason, sample, 0))
            return
        for name, array in wanted.items():
            want, found = np.asarray(array), np.asarray(got[name])
            if want.shape != found.shape:
                reason = (
                    f"Output {name!r} has shape {found.shape} instead of {want.shape} (rows from {sample.origin!r})."
                )
                self._refuse(_Finding(2, 0.0, reason, sample, 0))
            elif name in self._decisions or want.dtype.kind in "OUSb":
                if not lenient:
                    self._compare_decisions(name, want, found, wanted, sample)
            else:
                self._compare_numbers(name, want, found, sample, lenient=lenient)

    def _compare_decisions(
        self, name: str, want: Array, got: Array, wanted: Mapping[str, Array], sample: Sample
    ) -> None:
        rows = want.shape[0] if want.ndim else 1
        unequal = np.atleast_1d((want != got).reshape(rows, -1).any(axis=1))
        ties = unequal & self._tied(wanted, name, rows)
        changed = unequal & ~ties
        row = int(np.argmax(changed))
        where = f"{sample.origin}, row {row}" if changed.any() else ""
        self._note(OutputFidelity(name, 0.0, 0.0, True, int(changed.sum()), int(ties.sum()), rows, where))
        if changed.any():
            low, high = wilson_interval(int(changed.sum()), rows)
            reason = (
                f"{int(changed.sum())} of {rows} decisions of {name!r} change (95 % interval {low:.1%} to {high:.1%}; "
                f"rows from {sample.origin!r}; the first in row {row}: {np.atleast_1d(got)[row]!r} instead of "
                f"{np.atleast_1d(want)[row]!r}, at {_shown(sample.tensors, row)})."
            )
            self._refuse(_Finding(1, float(changed.mean()), reason, sample, row))

    def _tied(self, wanted: Mapping[str, Array], decision: str, rows: int) -> Array:
        """Rows where the reference's two best scores lie within the tolerance of each other."""
        tied = np.zeros(rows, bool)
        for name, scores in wanted.items():
            if name == decision or scores.dtype.kind != "f" or scores.shape[:1] != (rows,):
                continue
            if scores.ndim == 1:
                margin = np.abs(scores)
            elif scores.ndim == 2 and scores.shape[1] > 1:
                best = np.sort(scores, axis=1)
                margin = best[:, -1] - best[:, -2]
            else:
                continue
            tied |= margin <= 2 * self._tolerance.allowed(scores.reshape(rows, -1)).reshape(-1)
        return tied

    def _compare_numbers(self, name: str, want: Array, got: Array, sample: Sample, *, lenient: bool) -> None:
        rows = want.shape[0] if want.ndim else 1
        if not want.size:
            return
        exact = want.reshape(rows, -1).astype(np.float64)
        error = _errors(exact, got.reshape(rows, -1).astype(np.float64), lenient=lenient)
        allowed = self._tolerance.allowed(exact)
        excess = (error - allowed).max(axis=1)
        row = int(np.argmax(excess))
        absolute = float(error.max())
        with np.errstate(all="ignore"):
            relative = float((error / np.maximum(row_scale(exact), np.finfo(np.float64).tiny)).max())
        where = f"{sample.origin}, row {row}"
        self._note(OutputFidelity(name, absolute, relative if absolute else 0.0, False, 0, 0, rows, where))
        if excess[row] > 0:
            reason = (
                f"Output {name!r} differs by {error[row].max():.3g} in row {row} of those from {sample.origin!r}, "
                f"where {allowed[row].max():.3g} is allowed, at {_shown(sample.tensors, row)}."
            )
            self._refuse(_Finding(0, float(excess[row]), reason, sample, row))

    def _note(self, found: OutputFidelity) -> None:
        before = self._outputs.get(found.name)
        self._outputs[found.name] = found if before is None else before.joined(found)

    def _refuse(self, finding: _Finding) -> None:
        if self._worst is None or finding[:2] > self._worst[:2]:
            self._worst = finding


def compare(
    reference: Answer,
    candidate: Answer,
    samples: Iterable[Sample],
    *,
    tolerance: Tolerance,
    decisions: frozenset[str] = frozenset(),
    versions: Mapping[str, str] | None = None,
) -> FidelityReport:
    """Measure how far `candidate`'s answers are from `reference`'s.

    Args:
        samples: Inputs for both. Where the reference raises, the sample is left out and counted.
        decisions: Outputs whose values must be equal, not close.

    Returns:
        The report; its verdict is in `is_faithful` and `reason`.
    """
    found = Comparison(reference, candidate, tolerance=tolerance, decisions=decisions, versions=versions)
    for sample in samples:
        found.add(sample)
    return found.report()


def _errors(exact: Array, tried: Array, *, lenient: bool) -> Array:
    """Absolute errors; none where both say the same of infinity and NaN, infinite where only one does."""
    with np.errstate(all="ignore"):
        error = np.abs(exact - tried)
        same = (exact == tried) | (np.isnan(exact) & np.isnan(tried))
        # What the reference itself cannot say as a number need not be matched to the letter.
        error = np.where(same | (lenient & ~np.isfinite(exact)), 0.0, error)
        return np.where(np.isnan(error), np.inf, error)


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _shown(tensors: Tensors, row: int) -> str:
    """One row of the inputs, its first values, for people."""
    parts = []
    for name, array in tensors.items():
        values = np.atleast_1d(array[row] if array.ndim and row < array.shape[0] else array).ravel()
        few = ", ".join(
            f"{value:.6g}" if values.dtype.kind == "f" else repr(value) for value in values[:_VALUES_SHOWN].tolist()
        )
        parts.append(f"{name} = [{few}{', ...' * (values.size > _VALUES_SHOWN)}]")
    return "; ".join(parts)


def _digest(digest: Any, tensors: Tensors) -> None:
    for name, array in tensors.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes())
