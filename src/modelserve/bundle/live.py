"""The one servable that is not portable: a plain Python callable, which only its own application's workers may run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelserve.tensors import Signature, TensorSpec


@dataclass(frozen=True, slots=True)
class LiveCallable:
    """A callable on its way from the application to its own workers, and nowhere else.

    Attributes:
        payload: The callable as cloudpickle wrote it; it takes the inputs as a dict of arrays by name and returns
            the outputs as one.
        reason: Why the source could not be made portable, for whoever refuses to take it.
        reports: What was found when the copy that the workers get was compared with the source; plain JSON objects.
    """

    payload: bytes = field(repr=False)
    signature: Signature
    reason: str
    rows_independent: bool = False
    reports: tuple[Mapping[str, Any], ...] = ()

    @property
    def digest(self) -> str:
        """Names this callable: 64 lower-case hex digits."""
        return hashlib.sha256(self.payload).hexdigest()

    def __str__(self) -> str:
        """What a bundle's certificate is for a bundle, for people."""
        lines = ["runs as it is, in Python, by workers of this program only", f"  why    {_indented(self.reason)}"]
        lines += [f"  takes  {_shown(self.signature.inputs)}", f"  gives  {_shown(self.signature.outputs)}"]
        lines += [f"  rows   {'independent of each other' if self.rows_independent else 'answered together'}"]
        return "\n".join(lines + [f"  tried  {_found(report)}" for report in self.reports])


def _indented(text: str) -> str:
    return text.replace("\n", "\n         ")


def _shown(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name}: {spec}" for spec in specs)


def _found(report: Mapping[str, Any]) -> str:
    verdict = "the copy answers as the source does" if report.get("is_faithful") else report.get("reason", "")
    return f"{report.get('rows', 0)} rows: {verdict}"
