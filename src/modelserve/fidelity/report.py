"""What a comparison found: errors, changed decisions, a verdict with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from modelserve.tensors import Array


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may be from the reference's: `absolute + relative * (largest magnitude in its row)`."""

    absolute: float
    relative: float

    def allowed(self, exact: Array) -> Array:
        """The largest error allowed in each row of `exact` (rows, values): (rows, 1), in the values' units."""
        return np.asarray(self.absolute + self.relative * row_scale(exact))


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

    def joined(self, later: OutputFidelity) -> OutputFidelity:
        """The same output, over the rows of both."""
        is_worse = later.largest_absolute_error > self.largest_absolute_error or (later.changed and not self.changed)
        return OutputFidelity(
            self.name,
            max(self.largest_absolute_error, later.largest_absolute_error),
            max(self.largest_relative_error, later.largest_relative_error),
            self.is_decision,
            self.changed + later.changed,
            self.ties + later.ties,
            self.rows + later.rows,
            later.worst_row if is_worse else self.worst_row,
        )


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


def wilson_interval(count: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share (E. B. Wilson, 1927, JASA 22); 0 to 1 where nothing was tried."""
    if total == 0:
        return 0.0, 1.0
    share = count / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def default_tolerance(arrays: Sequence[Array]) -> Tolerance:
    """What fits the coarsest floating dtype among the outputs."""
    eps = max((float(np.finfo(array.dtype).eps) for array in arrays if array.dtype.kind == "f"), default=0.0)
    if eps > 1e-4:  # half precision
        return Tolerance(1e-2, 1e-2)
    if eps > 1e-10:
        return Tolerance(1e-5, 1e-4)
    return Tolerance(1e-9, 1e-7)


def row_scale(exact: Array) -> Array:
    """The largest finite magnitude in each row: (rows, values) -> (rows, 1)."""
    finite = np.where(np.isfinite(exact), np.abs(exact), 0.0)
    scale: Array = finite.max(axis=1, keepdims=True, initial=0.0)
    return scale


def _plain(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
