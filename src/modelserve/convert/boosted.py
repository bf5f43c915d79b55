"""A boosted model as a graph of its own: the example's columns, one forest, what the framework answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import helper

from modelserve.bundle import Origin, Step
from modelserve.convert.answers import Methods, ask, ask_example, output_spec
from modelserve.convert.contract import Draft, Tolerance
from modelserve.convert.drawing import Drawing, Part, initializers
from modelserve.convert.forest import Forest, draw
from modelserve.convert.graph import declare, element_type
from modelserve.convert.table import Table, read_table
from modelserve.errors import SignatureError
from modelserve.tensors import Array, Signature, Tensors

if TYPE_CHECKING:
    from onnx import ModelProto

_OPSETS = {"": 18, "ai.onnx.ml": 3}
_IR_VERSION = 9
_MADE_UP = re.compile(r"(Column_|f)?\d+")
# Sums of float32 leaves in another order; relative to the row's largest score.
_TOLERANCE = Tolerance(1e-5, 1e-4)


class Model(NamedTuple):
    """A boosted model, read.

    Attributes:
        methods: The source's own answers by name; the first is what its `predict` gives.
        columns: The names of the features that it was trained with, where it remembers any.
    """

    forest: Forest
    methods: Methods
    columns: Sequence[str] | None = None


def classifier_methods(source: Any) -> dict[str, Callable[[Any], Any]]:
    """What a classifier of scikit-learn's manner answers."""
    names = {"label": "predict", "probabilities": "predict_proba", "decision_function": "decision_function"}
    return {name: getattr(source, method) for name, method in names.items() if hasattr(source, method)}


def drafts_of(source: Any, example: Any, model: Model, *, framework: str, version: str) -> list[Callable[[], Draft]]:
    """The one route there is: float64 where the framework compares in that, and the example needs it."""
    table = read_table(source, example)
    _check_columns(source, table, model)
    origin = Origin(framework, f"{type(source).__module__}.{type(source).__qualname__}", {framework: version})
    # A threshold can lie between a number and its float32: no rows that are tried would tell whether that matters.
    double = table.is_wide and not model.forest.rounds_inputs
    return [partial(_draft, table, model, origin, double=double)]


def _check_columns(source: Any, table: Table, model: Model) -> None:
    """A boosted model reads columns by place: names in another order would be another model."""
    spec = table.specs[0]
    given = [each.name for each in table.specs] if table.by_column else list(spec.columns)
    wanted = [str(name) for name in model.columns or []]
    # Some frameworks write names without spaces, and names of their own where there were none.
    is_alike = [name.replace(" ", "_") for name in given] == [name.replace(" ", "_") for name in wanted]
    is_made_up = all(_MADE_UP.fullmatch(name) for name in wanted)
    if given and wanted and not is_alike and not is_made_up:
        raise SignatureError(
            f"{type(source).__name__} was trained with the columns {wanted}, and the example has {given}. "
            "Give them in that order: df[[...]]."
        )


def _draft(table: Table, model: Model, origin: Origin, *, double: bool) -> Draft:
    wanted = ask_example(model.methods, table)
    outputs = tuple(output_spec(name, array) for name, array in wanted.items())
    graph = _graph(table, model.forest, wanted, double)
    declare(graph, table.specs, outputs)

    def reference(tensors: Tensors) -> Mapping[str, Array]:
        return ask(model.methods, table, tensors)

    precision = "float64" if double else "float32"
    return Draft(
        model=graph,
        signature=Signature(table.specs, outputs),
        example=table.tensors,
        reference=reference,
        origin=origin,
        steps=(Step("convert", {"from": origin.framework, "precision": precision}),),
        decisions=frozenset({"label"} & set(wanted)),
        tolerance=_TOLERANCE,
    )


def _graph(table: Table, forest: Forest, wanted: Mapping[str, Array], double: bool) -> ModelProto:
    drawing = Drawing("forest_")
    parts = [Part(spec.name, _width(spec.shape), spec.dtype == "string") for spec in table.specs]
    found = draw(_with_codes(forest, table), parts, drawing, double=double)
    for name in wanted:
        drawing.add_as("Identity", [found["scores" if name == "decision_function" else name]], name)
    inputs = [
        helper.make_tensor_value_info(spec.name, element_type(spec.dtype), list(spec.shape)) for spec in table.specs
    ]
    graph = helper.make_graph(
        drawing.nodes,
        "model",
        inputs,
        [helper.make_tensor_value_info(name, _kind(name, forest), [None] * _axes(name, forest)) for name in wanted],
        list(initializers(drawing)),
    )
    opsets = [helper.make_opsetid(domain, number) for domain, number in _OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _kind(name: str, forest: Forest) -> int:
    if name != "label" or forest.classes is None:
        return element_type("float32")
    return element_type("int64" if np.asarray(forest.classes).dtype.kind in "biuf" else "string")


def _axes(name: str, forest: Forest) -> int:
    """How many axes the forest's answer has; the source's may have another one, of size 1."""
    return 1 if name == "label" or (name == "value" and forest.scores == 1) else 2


def _width(shape: Sequence[int | str]) -> int:
    return int(shape[1]) if len(shape) == 2 else 1


def _with_codes(forest: Forest, table: Table) -> Forest:
    """The forest with the categories of the example's columns, where the model does not remember its own."""
    if not table.categories or forest.codes:
        return forest
    names = [spec.name for spec in table.specs]
    return replace(forest, codes={names.index(name): values for name, values in table.categories.items()})
