"""The routes from a source to a graph, tried in turn: each graph is held against the source at other sizes first.

rung 1: all free axes ──lies──► rung 2 … ──► rung 1 again, narrower: without those that lied, batch only, none
             │ holds
             ▼
           Draft, with what was tried before it in its lineage
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, partial
from typing import Any, TypeAlias

from onnx import ModelProto, ValueInfoProto
from onnx.helper import make_node, make_tensor_value_info

from modelserve.bundle import Origin, Step
from modelserve.convert.axes import BATCH, Freedom, Probe, explore, lying, output_shape, together
from modelserve.convert.contract import Draft, Reference, Stages, Tolerance
from modelserve.convert.graph import declare, element_type, rename
from modelserve.convert.quiet import quiet
from modelserve.errors import BundleError, ConversionError, SignatureError
from modelserve.session import load
from modelserve.tensors import OIP_DATATYPES, Array, Signature, Tensors, TensorSpec

#: Makes a graph of these inputs in which the axes of the freedom can be of any size. Its inputs are named as the
#: tensors or stand in their order; its outputs stand in the order of the answers.
Export: TypeAlias = Callable[[Probe, Freedom], ModelProto]


class Scope(Enum):
    """How much freedom a rung asks for."""

    ALL = "all free axes"
    NARROWED = "those free axes at which no graph lied"
    BATCH = "the batch alone"
    STATIC = "the example's own sizes"


NARROWER = (Scope.NARROWED, Scope.BATCH, Scope.STATIC)
EVERY = (Scope.ALL, *NARROWER)


class HopelessError(ConversionError):
    """A route that fewer free axes will not open."""


class UnfitError(HopelessError):
    """A route that is not for this source; nobody needs to know that it was asked."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One exporter, asked for less and less freedom until its graph holds."""

    name: str
    export: Export
    scopes: Sequence[Scope] = EVERY


@dataclass(frozen=True)
class Source:
    """What every rung needs of the source.

    Attributes:
        reference: Its own answers.
        channels_last: Whether images are (rows, height, width, channels).
        settings: What else was settled for it, to be written into the lineage.
        stages: Its inner values, where it can tell them.
    """

    origin: Origin
    example: Tensors
    reference: Reference
    channels_last: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    tolerance: Tolerance | None = None
    stages: Stages | None = None

    @cached_property
    def answers(self) -> Mapping[str, Array]:
        """To the example.

        Raises:
            SignatureError: the source refuses the example.
            ConversionError: it answers with what cannot be served.
        """
        try:
            answers = self.reference(self.example)
        except (ConversionError, SignatureError):
            raise
        except Exception as error:
            # A source refuses what it is given by any exception.
            shapes = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in self.example.items())
            raise SignatureError(
                f"{self.origin.type} cannot be called on the example ({shapes}): "
                f"{type(error).__name__}: {str(error)[:500]}. Give what it is called with."
            ) from error
        odd = [f"{name!r} is {array.dtype}" for name, array in answers.items() if array.dtype.name not in OIP_DATATYPES]
        if odd or not answers:
            raise ConversionError(
                f"{self.origin.type} answers with what cannot be served: {', '.join(odd) or 'nothing'}."
            )
        return answers

    @cached_property
    def freedom(self) -> Freedom:
        with quiet():
            return explore(self.reference, self.example, self.answers, channels_last=self.channels_last)


def climb(source: Source, rungs: Sequence[Rung]) -> Sequence[Callable[[], Draft]]:
    """The drafts of `source`, one for each rung, which know what became of those before them."""
    ladder = _Ladder(source)
    return [partial(ladder.draft, rung) for rung in rungs]


class _Ladder:
    """One source on its way up. `_tried` holds the rungs that were left, `_lied` the axes at which a graph lied."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._tried: list[str] = []
        self._lied: set[str] = set()
        self._hopeless: dict[str, HopelessError] = {}

    def draft(self, rung: Rung) -> Draft:
        """The rung's graph, holding at every size that was tried.

        Raises:
            ConversionError: it has none.
        """
        before = tuple(dict.fromkeys(self._tried))
        self._tried.append(rung.name)
        if rung.name in self._hopeless:
            raise self._hopeless[rung.name]
        refusals = []
        for freedom in self._freedoms(rung.scopes):
            try:
                return self._held(rung, freedom, before)
            except UnfitError:
                self._tried.remove(rung.name)
                raise
            except HopelessError as error:
                self._hopeless[rung.name] = error
                refusals.append(str(error))
                break
            except ConversionError as error:
                refusals.append(str(error))
        raise ConversionError("; ".join(dict.fromkeys(refusals)) or f"{rung.name}: no axis is left to be narrowed.")

    def _freedoms(self, scopes: Sequence[Scope]) -> Iterator[Freedom]:
        """What each scope allows, as far as that is known when it is its turn; none twice."""
        full = self._source.freedom
        seen = [] if Scope.ALL in scopes else [full.names]
        for scope in scopes:
            honest = [name for name in full.names if name not in self._lied]
            wanted = {
                Scope.ALL: list(full.names),
                Scope.NARROWED: honest,
                Scope.BATCH: [name for name in honest if name == BATCH],
                Scope.STATIC: [],
            }[scope]
            freedom = full.only(wanted)
            if freedom.names not in seen:
                seen.append(freedom.names)
                yield freedom

    def _held(self, rung: Rung, freedom: Freedom, before: tuple[str, ...]) -> Draft:
        source = self._source
        given = together(source.reference, freedom) if freedom.axes else Probe(source.example, source.answers)
        try:
            with quiet():
                model = rung.export(given, freedom)
        except ConversionError:
            raise
        except Exception as error:
            # Exporters raise classes of their own, of their compilers, and of the model's own code.
            raise ConversionError(f"{rung.name}: the exporter refuses it: {_short(error)}") from error
        signature = _declared(model, source, freedom)
        lies = lying(_candidate(model, signature), source.reference, freedom, given, source.tolerance)
        if lies:
            self._lied |= set(lies)
            raise ConversionError(f"{rung.name}: {'; '.join(lies.values())}")
        return Draft(
            model=model,
            signature=signature,
            example=source.example,
            reference=source.reference,
            origin=source.origin,
            steps=(self._step(rung, freedom, before),),
            tolerance=source.tolerance,
            stages=source.stages,
        )

    def _step(self, rung: Rung, freedom: Freedom, before: tuple[str, ...]) -> Step:
        narrowed = [name for name in self._source.freedom.names if name not in freedom.names]
        found = {
            "from": self._source.origin.framework,
            "route": rung.name,
            "dynamic": list(freedom.names),
            "narrowed": narrowed,
            "tried": [name for name in before if name != rung.name],
            **self._source.settings,
        }
        return Step("convert", {key: value for key, value in found.items() if value})


def _declared(model: ModelProto, source: Source, freedom: Freedom) -> Signature:
    """The signature, written into the graph."""
    _name_ends(model, source.example, list(source.answers))
    inputs = tuple(TensorSpec(name, array.dtype.name, freedom.shape(name)) for name, array in source.example.items())
    outputs = tuple(
        TensorSpec(name, array.dtype.name, output_shape(name, freedom) if freedom.axes else array.shape)
        for name, array in source.answers.items()
    )
    declare(model, inputs, outputs)
    return Signature(inputs, outputs)


def _name_ends(model: ModelProto, example: Tensors, outputs: Sequence[str]) -> None:
    """Give the graph's ends the source's names; an input that the exporter left out comes back, unused."""
    found = [value.name for value in model.graph.input]
    if len(model.graph.output) != len(outputs) or not (len(found) == len(example) or set(found) <= set(example)):
        raise ConversionError(
            f"The exporter left out inputs or outputs: it kept {found} and {len(model.graph.output)} output(s)."
        )
    _part_ends(model)
    by_order = dict(zip(found, example, strict=True)) if not set(found) <= set(example) else {}
    rename(model, by_order | dict(zip((value.name for value in model.graph.output), outputs, strict=True)))
    kept = {value.name: value.SerializeToString() for value in model.graph.input}
    del model.graph.input[:]
    for name, array in example.items():
        unused = make_tensor_value_info(name, element_type(array.dtype.name), list(array.shape))
        model.graph.input.append(ValueInfoProto.FromString(kept[name]) if name in kept else unused)


def _part_ends(model: ModelProto) -> None:
    """Make every output a value of its own: an exporter may name one value twice, or an input."""
    taken = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    for number, value in enumerate(model.graph.output):
        if value.name in taken:
            model.graph.node.append(make_node("Identity", [value.name], [f"end_{number}"]))
            value.name = f"end_{number}"
        taken.add(value.name)


def _candidate(model: ModelProto, signature: Signature) -> Reference:
    """The graph's answers, as the certificate will ask for them."""
    try:
        session = load(model.SerializeToString())
    except BundleError as error:
        raise ConversionError(f"The converted graph is not valid: {error}") from error
    names = [spec.name for spec in signature.outputs]

    def answer(tensors: Tensors) -> Mapping[str, Array]:
        try:
            return dict(zip(names, session.run(names, dict(tensors)), strict=True))
        except Exception as error:  # onnxruntime raises classes of its C++ side without a common root
            raise ConversionError(str(error)) from error

    return answer


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:500]}"
