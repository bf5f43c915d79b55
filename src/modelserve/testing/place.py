"""What a backend's author gives to the conformance suite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from modelserve.backend import Backend, ErrorTable


def _nothing() -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Place:
    """A backend under test.

    Attributes:
        leftovers: Everything that modelserve made there and that still exists: processes, files, resources.
        half_failing: Within it, a deploy fails after it has begun; None where nothing can fail half-way.
        vendor_errors: One of each error that the vendor's SDK defines.
        error_table: How the backend translates them.
        deadline_s: How long the slowest verb may take there.
    """

    backend: Backend
    leftovers: Callable[[], Sequence[str]] = _nothing
    half_failing: Callable[[], AbstractContextManager[None]] | None = None
    vendor_errors: Sequence[BaseException] = ()
    error_table: ErrorTable = field(default_factory=dict)
    deadline_s: float = 30.0
