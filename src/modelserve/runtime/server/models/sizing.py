"""How many workers a model is to have: a number, or as many as its load needs between two bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelserve.errors import InvalidScaleError

DEFAULT_TARGET_INFLIGHT = 4.0


@dataclass(frozen=True, slots=True)
class Sizing:
    """Equal bounds are a fixed number; a minimum of 0 below that rests until a request.

    Attributes:
        target_inflight: Requests under way per worker to aim at between the bounds.
    """

    minimum: int
    maximum: int
    target_inflight: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum:
            raise InvalidScaleError(f"Workers need 0 <= minimum <= maximum, got {self.minimum}..{self.maximum}.")
        if self.target_inflight is not None and not 0 < self.target_inflight < math.inf:
            raise InvalidScaleError(f"target_inflight must be above 0, got {self.target_inflight!r}.")

    @property
    def is_fixed(self) -> bool:
        return self.minimum == self.maximum
