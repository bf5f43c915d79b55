"""A model on its way through the passes, and what a pass is.

    Draft ──Pass.change(draft, calibration)──► Draft        the signature stays; the weights and the graph may not

A pass never edits the draft that it is given. One that the graph has no place for raises `InapplicableError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from modelserve.errors import ModelServeError, OptimizationError
from modelserve.session import load
from modelserve.tensors import Tensors

if TYPE_CHECKING:
    from onnx import ModelProto

#: Inputs that show what flows through the model: batches by input name.
Calibration: TypeAlias = Sequence[Tensors]

Found = TypeVar("Found")


class InapplicableError(OptimizationError):
    """The graph has no place for this pass; the message says why."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A graph, and the session settings under which it is to run."""

    model: ModelProto
    session: Mapping[str, str] = field(default_factory=dict)

    def copy_model(self) -> ModelProto:
        """The graph, for a pass to change."""
        import onnx

        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        return copy

    def load(self, *, threads: int = 1) -> Any:
        """An onnxruntime session of it."""
        return load(self.model.SerializeToString(), threads=threads, settings=self.session)


class Memory(Generic[Found]):
    """What was found out about a draft, kept for the next pass that asks about the same one."""

    def __init__(self) -> None:
        self._draft: Draft | None = None
        self._found: Found | None = None

    def of(self, draft: Draft, find: Callable[[], Found]) -> Found:
        """What `find` answers, or answered before about this draft."""
        if self._found is None or self._draft is not draft:
            self._draft, self._found = draft, find()
        return self._found


@dataclass(frozen=True, slots=True)
class Pass:
    """One change of a model.

    Attributes:
        settings: What makes the result differ; plain JSON, written into the lineage.
        is_exact: Whether it computes the same function by construction, rounding of floats aside.
    """

    name: str
    change: Callable[[Draft, Calibration], Draft] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_exact: bool = False

    def apply(self, draft: Draft, calibration: Calibration) -> Draft:
        """Do it.

        Raises:
            InapplicableError: the graph has no place for it.
            OptimizationError: it failed on this graph.
        """
        try:
            return self.change(draft, calibration)
        except (ModelServeError, AssertionError):
            raise
        except Exception as error:  # onnxruntime's quantiser and sessions raise what they please about unusual graphs
            raise OptimizationError(f"{self.name!r} failed on this graph: {type(error).__name__}: {error}") from error
