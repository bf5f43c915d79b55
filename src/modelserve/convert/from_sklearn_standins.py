"""Estimators that draw themselves: they stand in a pipeline where skl2onnx does not know the real one, or errs on it.

skl2onnx keeps its converters in tables by class. Only the classes of this file are added to them, so that a program
that uses skl2onnx itself finds its own converters as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import BaseEstimator, ClassifierMixin, OutlierMixin, RegressorMixin, TransformerMixin
from sklearn.preprocessing import OneHotEncoder

from modelserve.convert.drawing import Drawing, Part, initializers
from modelserve.convert.forest import Forest, draw
from modelserve.tensors import Array

#: Appends nodes for some columns, in float64 or float32; answers with values by what they are (see `forest.draw`).
Painter: TypeAlias = Callable[[Sequence[Part], Drawing, bool], Mapping[str, str]]

# What the graphs of skl2onnx are made with: 18 and 3 run everywhere (see from_sklearn).
_VERSIONS = {"": 18, "ai.onnx.ml": 3}
_NO_MAP = {"zipmap": [True, False, "columns"], "nocl": [True, False]}


class StandIn:
    """What stands in.

    Attributes:
        jumps: Whether the answer can change altogether with a number's rounding to float32.
        rounds_inputs: Whether the estimator that this stands for rounds its inputs so itself.
        double: Whether the graph that is being made computes in float64; text alone does not tell.
    """

    jumps = False
    rounds_inputs = False
    double = False
    n_features_in_: int

    def fit(self, x: Any, y: Any = None) -> Any:
        """skl2onnx takes for an estimator what has a `fit`, and never calls it."""
        raise NotImplementedError


class RegressorStandIn(StandIn, RegressorMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Answers `value`: (rows,) or (rows, outputs)."""

    def __init__(self, paint: Painter, outputs: int = 1) -> None:
        self.paint = paint
        self.outputs = outputs


class TransformerStandIn(StandIn, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Answers `value`: (rows, outputs)."""

    def __init__(self, paint: Painter, outputs: int, *, jumps: bool = False) -> None:
        self.paint = paint
        self.outputs = outputs
        self.jumps = jumps


class EncoderStandIn(StandIn, OneHotEncoder):  # type: ignore[misc]  # untyped
    """Like a TransformerStandIn, and given columns one by one: skl2onnx would join them to one table."""

    def __init__(self, paint: Painter, outputs: int, *, jumps: bool) -> None:
        self.paint = paint
        self.outputs = outputs
        self.jumps = jumps


class ClassifierStandIn(StandIn, ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Answers `label` and `probabilities`."""

    def __init__(self, paint: Painter, classes: Array) -> None:
        self.paint = paint
        self.classes_ = classes

    def predict_proba(self, x: Any) -> Any:
        """skl2onnx looks whether there is such a method, and never calls it."""
        raise NotImplementedError


class ScoringStandIn(ClassifierStandIn):
    """A classifier whose `decision_function` is asked for by those around it: answers `scores` as well."""

    def decision_function(self, x: Any) -> Any:
        """As for `predict_proba`."""
        raise NotImplementedError


class OutlierStandIn(StandIn, OutlierMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Answers `label`, 1 or -1, and `scores`: (rows, 1), below 0 for what lies outside."""

    def __init__(self, paint: Painter, classes: Array) -> None:
        self.paint = paint
        self.classes_ = classes


def forest_stand_in(forest: Forest, *, has_scores: bool = False) -> BaseEstimator:
    """An estimator that draws a forest."""

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        return draw(forest, parts, drawing, double=double)

    if forest.classes is None:
        stand_in: BaseEstimator = RegressorStandIn(paint, forest.scores)
    else:
        stand_in = (ScoringStandIn if has_scores else ClassifierStandIn)(paint, forest.classes)
    stand_in.jumps = True
    stand_in.rounds_inputs = forest.rounds_inputs
    return stand_in


def _shape_of_labels(operator: Any) -> None:
    classes = operator.raw_operator.classes_
    rows = operator.inputs[0].type.shape[0]
    kind = Int64TensorType if classes.dtype.kind in "biuf" else StringTensorType
    operator.outputs[0].type = kind([rows])
    columns = 1 if isinstance(operator.raw_operator, OutlierStandIn) else len(classes)
    operator.outputs[1].type = _number_type(operator)([rows, columns])


def _shape_of_value(operator: Any) -> None:
    rows = operator.inputs[0].type.shape[0]
    operator.outputs[0].type = _number_type(operator)([rows, operator.raw_operator.outputs])


def _number_type(operator: Any) -> Any:
    return DoubleTensorType if operator.raw_operator.double else FloatTensorType


def _convert(scope: Any, operator: Any, container: Any) -> None:
    estimator = operator.raw_operator
    double = _number_type(operator) is DoubleTensorType
    drawing = Drawing(f"{scope.get_unique_variable_name('stand_in')}_")
    parts = [
        Part(each.full_name, _width(each.type), isinstance(each.type, StringTensorType)) for each in operator.inputs
    ]
    found = estimator.paint(parts, drawing, double)
    names = [variable.full_name for variable in operator.outputs]
    if len(names) == 2:
        scores = _second(estimator, found, container, drawing)
        drawing.add_as("Identity", [found["label"]], names[0])
        _give(scores, names[1], drawing, double)
    else:
        table = drawing.weight(np.array([-1, estimator.outputs], np.int64))
        _give(drawing.add("Reshape", [found["value"], table]), names[0], drawing, double)
    for node in drawing.nodes:
        container.nodes.append(node)
        container.node_domain_version_pair_sets.add((node.domain, _VERSIONS[node.domain]))
    container.initializers.extend(initializers(drawing))


def _second(estimator: Any, found: Mapping[str, str], container: Any, drawing: Drawing) -> str:
    """What stands beside the label: probabilities, or raw scores where those around asked for them."""
    if isinstance(estimator, OutlierStandIn):
        return found["scores"]
    is_asked = isinstance(estimator, ScoringStandIn) and container.get_options(estimator, {"raw_scores": False})
    if not (is_asked and is_asked["raw_scores"]):
        return found["probabilities"]
    if len(estimator.classes_) > 2:
        return found["scores"]
    return drawing.add("Concat", [drawing.add("Neg", [found["scores"]]), found["scores"]], axis=1)


def _width(kind: Any) -> int:
    """How many columns skl2onnx says; 0 where it does not know."""
    return kind.shape[1] if len(kind.shape) == 2 and isinstance(kind.shape[1], int) else 0


def _give(value: str, name: str, drawing: Drawing, double: bool) -> None:
    drawing.add_as("Cast", [value], name, to=TensorProto.DOUBLE if double else TensorProto.FLOAT)


for _kind, _shape, _options in (
    (ScoringStandIn, _shape_of_labels, {**_NO_MAP, "raw_scores": [True, False]}),
    (ClassifierStandIn, _shape_of_labels, _NO_MAP),
    (OutlierStandIn, _shape_of_labels, None),
    (RegressorStandIn, _shape_of_value, None),
    (TransformerStandIn, _shape_of_value, None),
    (EncoderStandIn, _shape_of_value, None),
):
    update_registered_converter(_kind, f"Modelserve{_kind.__name__}", _shape, _convert, options=_options)
