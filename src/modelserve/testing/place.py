"""What a backend's author gives to the conformance suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from modelserve.backend import Backend, ErrorTable
from modelserve.standin.faults import Faults


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
        elsewhere: Environment variables by which another process has a target "elsewhere" that is this place; None
            where nothing can be attached to.
        kill_replica: Ends one replica of the deployment named, as a machine that breaks does.
        failing_start: Within it, everything can be created and no model becomes ready.
        faults: What can go wrong with each call of a stand-in.
    """

    backend: Backend
    leftovers: Callable[[], Sequence[str]] = _nothing
    half_failing: Callable[[], AbstractContextManager[None]] | None = None
    vendor_errors: Sequence[BaseException] = ()
    error_table: ErrorTable = field(default_factory=dict)
    deadline_s: float = 30.0
    elsewhere: Mapping[str, str] | None = None
    kill_replica: Callable[[str], None] | None = None
    failing_start: Callable[[], AbstractContextManager[None]] | None = None
    faults: Faults | None = None
