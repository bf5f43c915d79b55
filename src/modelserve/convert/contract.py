"""What turns one framework's models into a graph.

    source ──detect──► Converter.convert(source, example) ──► Draft ──fidelity vs Draft.reference──► Bundle

A converter is the only file that imports its framework. It gives a draft: the graph, and the source's own answers
to compare it with. Whether the draft is believed is decided in one place, for all frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from modelserve.bundle import Origin, Step
from modelserve.fidelity import Tolerance as Tolerance
from modelserve.tensors import Array, Signature, Tensors

if TYPE_CHECKING:
    from onnx import ModelProto

#: The source's own answers: all outputs by name, for inputs by name. Raises what the source raises.
Reference: TypeAlias = Callable[[Tensors], Mapping[str, Array]]

#: What the source computes on its way to its answers, in that order: each step's name, and its value.
#: Asked only when a draft is refused, to name the first step that differs.
Stages: TypeAlias = Callable[[Tensors], Iterable[tuple[str, Array]]]


@dataclass(frozen=True, slots=True)
class Draft:
    """A converted model that nobody believes yet.

    Attributes:
        decisions: The outputs that are decisions (labels): these must be equal, not close.
        tolerance: What the route is known to reach; None for what fits the outputs' dtypes.
        stages: The source's inner values, where it can tell them.
        reports: What was compared on the way to the draft; plain JSON objects, which join the certificate.
    """

    model: ModelProto
    signature: Signature
    example: Tensors
    reference: Reference
    origin: Origin
    steps: tuple[Step, ...]
    decisions: frozenset[str] = field(default_factory=frozenset)
    tolerance: Tolerance | None = None
    stages: Stages | None = None
    reports: tuple[Mapping[str, Any], ...] = ()


class Converter(Protocol):
    """One framework's way to a graph."""

    #: Root modules of the classes it converts, such as ("sklearn",).
    roots: Sequence[str]

    def accepts(self, source: Any) -> bool:
        """Whether `source`, whose class or a base of it comes from one of `roots`, is a model of this framework."""
        ...

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        """The routes to try in turn, best first; each raises ConversionError where it cannot go on.

        Raises:
            ExampleRequiredError: the source does not say what it takes and no example is given.
            UnsupportedSourceError: this object cannot be converted, with the reason.
        """
        ...
