"""The one servable that is not portable: a plain Python callable, which only its own application's workers may run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from modelserve.tensors import Signature


@dataclass(frozen=True, slots=True)
class LiveCallable:
    """A callable on its way from the application to its own workers, and nowhere else.

    Attributes:
        payload: The callable as cloudpickle wrote it; it takes the inputs as a dict of arrays by name and returns
            the outputs as one.
        reason: Why the source could not be made portable, for whoever refuses to take it.
    """

    payload: bytes
    signature: Signature
    reason: str
    rows_independent: bool = False

    @property
    def digest(self) -> str:
        """Names this callable: 64 lower-case hex digits."""
        return hashlib.sha256(self.payload).hexdigest()
