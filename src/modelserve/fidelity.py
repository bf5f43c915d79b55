"""Did the answers change? Two models are asked the same, and every difference is measured.

    samples ──► reference ──┐
            └─► candidate ──┴─► FidelityReport: errors, changed decisions, a verdict with its reason

A number is close when it differs by at most `absolute + relative * (largest magnitude in its row)`.
A decision (a label) must be equal; where it is not, it counts as changed unless the reference's own scores tie within
the tolerance.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from modelserve.errors import ModelServeError
from modelserve.tensors import Array, Signature, Tensors

# Of the row's largest magnitude: a float32 sum taken in another order.
_ROUNDING = 1e-5

Answer: TypeAlias = Callable[[Tensors], Mapping[str, Array]]


class Sample(NamedTuple):
    """Inputs to try. `origin` says where they come from; `probes` marks values that a model may well not take."""

    origin: str
    tensors: Tensors
    probes: bool = False


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may be from the reference's: `absolute + relative * (largest magnitude in its row)`."""

    absolute: float
    relative: float


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """One output. Errors are in the output's units, relative ones a ratio to the row's largest magnitude."""

    name: str
    largest_absolute_error: float
    largest_relative_error: float
    is_decision: bool
    changed: int
    ties: int
    rows: int
    worst_row: str

    @property
    def changed_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share of changed rows."""
        return wilson_interval(self.changed, self.rows)


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """What a comparison found.

    Attributes:
        rows: Rows that both answered; `refused_rows` are those that the reference itself refused.
        tried: Rows by where they came from.
        samples_digest: sha256 of all inputs tried.
        reason: Why not faithful; empty where it is.
    """

    outputs: tuple[OutputFidelity, ...]
    rows: int
    refused_rows: int
    tried: Mapping[str, int]
    samples_digest: str
    tolerance: Tolerance
    seconds: float
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_faithful(self) -> bool:
        return not self.reason

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for a manifest. Infinite errors are written as text."""
        content: dict[str, Any] = {"kind": "fidelity", "is_faithful": self.is_faithful, **asdict(self)}
        content["outputs"] = [
            {key: _plain(value) for key, value in asdict(output).items()}
            | {"changed_interval": list(output.changed_interval)}
            for output in self.outputs
        ]
        return content


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
    start = time.perf_counter()
    tally = _Tally(tolerance, decisions)
    digest = hashlib.sha256()
    for sample in samples:
        _digest(digest, sample.tensors)
        tally.add(sample, reference, candidate)
    return FidelityReport(
        outputs=tuple(tally.outputs()),
        rows=tally.rows,
        refused_rows=tally.refused_rows,
        tried=tally.tried,
        samples_digest=digest.hexdigest(),
        tolerance=tolerance,
        seconds=round(time.perf_counter() - start, 4),
        reason=tally.verdict(),
        versions=dict(versions or {}),
    )


def wilson_interval(count: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share (E. B. Wilson, 1927, JASA 22); 0 to 1 where nothing was tried."""
    if total == 0:
        return 0.0, 1.0
    share = count / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def rows_are_independent(candidate: Answer, signature: Signature, tensors: Tensors) -> bool:
    """Whether every row is answered alike alone and among others: tried on the rows of `tensors`, 8 at most."""
    if not signature.is_batched:
        return False
    rows = min(8, next(iter(tensors.values())).shape[0])
    several = {name: np.resize(array[:rows], (max(rows, 2), *array.shape[1:])) for name, array in tensors.items()}
    try:
        together = candidate(several)
        alone = [candidate({name: array[row : row + 1] for name, array in several.items()}) for row in range(rows)]
    except ModelServeError:
        return False
    return all(
        array.ndim > 0
        and array.shape[0] == max(rows, 2)
        and all(_same_row(array[row], alone[row][name]) for row in range(rows))
        for name, array in together.items()
    )


class _Tally:
    """What was found so far."""

    def __init__(self, tolerance: Tolerance, decisions: frozenset[str]) -> None:
        self.rows = 0
        self.refused_rows = 0
        self.tried: dict[str, int] = {}
        self._tolerance = tolerance
        self._decisions = decisions
        self._found: dict[str, OutputFidelity] = {}
        self._reason = ""

    def outputs(self) -> Iterator[OutputFidelity]:
        yield from self._found.values()

    def verdict(self) -> str:
        if not self._reason and not self.rows:
            return "The source refused every input that was tried, the example among them."
        return self._reason

    def add(self, sample: Sample, reference: Answer, candidate: Answer) -> None:
        rows = next(iter(sample.tensors.values())).shape[0] if next(iter(sample.tensors.values())).ndim else 1
        try:
            wanted = reference(sample.tensors)
        except Exception:  # noqa: BLE001  # a source refuses inputs by any exception; that is counted, not hidden
            self.refused_rows += rows
            return
        self.rows += rows
        self.tried[sample.origin] = self.tried.get(sample.origin, 0) + rows
        lenient = sample.probes and not all(_is_finite(array) for array in wanted.values())
        try:
            got = candidate(sample.tensors)
        except ModelServeError as error:
            if not lenient:
                self._refuse(f"It cannot answer the rows from {sample.origin!r}, which the source can: {error}")
            return
        for name, array in wanted.items():
            self._compare(name, np.asarray(array), np.asarray(got[name]), wanted, sample, lenient=lenient)

    def _compare(
        self, name: str, want: Array, got: Array, wanted: Mapping[str, Array], sample: Sample, *, lenient: bool
    ) -> None:
        if want.shape != got.shape:
            self._refuse(
                f"Output {name!r} has shape {got.shape} instead of {want.shape} (rows from {sample.origin!r})."
            )
            return
        if name in self._decisions or want.dtype.kind in "OUSb":
            if not lenient:
                self._compare_decisions(name, want, got, wanted, sample.origin)
        else:
            self._compare_numbers(name, want, got, sample.origin, lenient=lenient)

    def _compare_decisions(self, name: str, want: Array, got: Array, wanted: Mapping[str, Array], origin: str) -> None:
        rows = want.shape[0] if want.ndim else 1
        unequal = np.atleast_1d((want != got).reshape(rows, -1).any(axis=1))
        ties = unequal & self._tied(wanted, name, rows)
        changed = unequal & ~ties
        where = f"{origin}, row {int(np.argmax(changed))}" if changed.any() else ""
        if changed.any():
            row = int(np.argmax(changed))
            self._refuse(
                f"{int(changed.sum())} of {rows} decisions of {name!r} change (rows from {origin!r}; the first in row "
                f"{row}: {np.atleast_1d(got)[row]!r} instead of {np.atleast_1d(want)[row]!r})."
            )
        self._note(name, 0.0, 0.0, int(changed.sum()), int(ties.sum()), rows, where, is_decision=True)

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
            tied |= margin <= 2 * self._allowed(scores.reshape(rows, -1)).reshape(-1)
        return tied

    def _compare_numbers(self, name: str, want: Array, got: Array, origin: str, *, lenient: bool) -> None:
        rows = want.shape[0] if want.ndim else 1
        exact = want.reshape(rows, -1).astype(np.float64)
        tried = got.reshape(rows, -1).astype(np.float64)
        with np.errstate(all="ignore"):
            error = np.abs(exact - tried)
            same = (exact == tried) | (np.isnan(exact) & np.isnan(tried))
            # What the reference itself cannot say as a number need not be matched to the letter.
            error = np.where(same | (lenient & ~np.isfinite(exact)), 0.0, error)
            error = np.where(np.isnan(error), np.inf, error)
            excess = error - self._allowed(exact)
            relative = error / np.maximum(_row_scale(exact), np.finfo(np.float64).tiny)
        if not error.size:
            return
        row = int(np.unravel_index(np.argmax(excess), excess.shape)[0])
        if excess.max() > 0:
            self._refuse(
                f"Output {name!r} differs by {error[row].max():.3g} in row {row} of those from {origin!r}, where "
                f"{self._allowed(exact)[row].max():.3g} is allowed."
            )
        absolute = float(error.max())
        self._note(name, absolute, float(relative.max()) if absolute else 0.0, 0, 0, rows, f"{origin}, row {row}")

    def _allowed(self, exact: Array) -> Array:
        return self._tolerance.absolute + self._tolerance.relative * _row_scale(exact)

    def _note(
        self,
        name: str,
        absolute: float,
        relative: float,
        changed: int,
        ties: int,
        rows: int,
        where: str,
        *,
        is_decision: bool = False,
    ) -> None:
        before = self._found.get(name)
        if before is None:
            self._found[name] = OutputFidelity(name, absolute, relative, is_decision, changed, ties, rows, where)
            return
        is_worse = absolute > before.largest_absolute_error or (changed and not before.changed)
        self._found[name] = OutputFidelity(
            name,
            max(absolute, before.largest_absolute_error),
            max(relative, before.largest_relative_error),
            is_decision,
            changed + before.changed,
            ties + before.ties,
            rows + before.rows,
            where if is_worse else before.worst_row,
        )

    def _refuse(self, reason: str) -> None:
        self._reason = self._reason or reason


def _row_scale(exact: Array) -> Array:
    finite = np.where(np.isfinite(exact), np.abs(exact), 0.0)
    scale: Array = finite.max(axis=1, keepdims=True, initial=0.0)
    return scale


def _same_row(together: Any, alone: Array) -> bool:
    """Whether one row is answered alike; among more rows sums are taken in another order, which moves numbers a bit."""
    together = np.asarray(together)
    if alone.ndim == 0 or alone.shape[0] != 1 or alone.shape[1:] != together.shape:
        return False
    if together.dtype.kind != "f":
        return bool(np.array_equal(together, alone[0]))
    finite = np.abs(together[np.isfinite(together)]).max(initial=0.0)
    return bool(np.allclose(together, alone[0], rtol=0.0, atol=_ROUNDING * float(finite), equal_nan=True))


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _plain(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _digest(digest: Any, tensors: Tensors) -> None:
    for name, array in tensors.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes())


def default_tolerance(arrays: Sequence[Array]) -> Tolerance:
    """What fits the coarsest floating dtype among the outputs."""
    eps = max((float(np.finfo(array.dtype).eps) for array in arrays if array.dtype.kind == "f"), default=0.0)
    if eps > 1e-4:  # half precision
        return Tolerance(1e-2, 1e-2)
    if eps > 1e-10:
        return Tolerance(1e-5, 1e-4)
    return Tolerance(1e-9, 1e-7)
