"""scikit-learn estimators and pipelines, by skl2onnx.

    predict          label (or value)            what `predict` answers, its dtype and shape
    predict_proba    probabilities
    otherwise        decision_function, distances, transformed

The graph computes in float32 where that is faithful, else in float64; the inputs keep the example's dtypes either way.
Before skl2onnx sees an estimator, it is rewritten into what skl2onnx knows (from_sklearn_rewrite).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import sklearn.base
from skl2onnx import convert_sklearn
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common._registration import _converter_pool
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import AdaBoostRegressor, RandomForestClassifier, RandomTreesEmbedding
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.neighbors._base import NeighborsBase
from sklearn.pipeline import Pipeline
from sklearn.preprocessing._encoders import _BaseEncoder as BaseEncoder

from modelserve.bundle import Origin, Step
from modelserve.convert.answers import Methods, ask, ask_example, name_outputs, names_in
from modelserve.convert.contract import Draft, Tolerance
from modelserve.convert.from_sklearn_neighbours import refuse_ties
from modelserve.convert.from_sklearn_rewrite import parts_of, rewrite
from modelserve.convert.from_sklearn_standins import StandIn
from modelserve.convert.graph import declare, rename
from modelserve.convert.quiet import quiet
from modelserve.convert.stages import pipeline_stages
from modelserve.convert.table import Table, read_table
from modelserve.convert.trees import cast_before_trees, tree_thresholds
from modelserve.errors import ConversionError, UnsupportedSourceError
from modelserve.tensors import Array, Signature, Tensors

_OPSETS = {"": 18, "ai.onnx.ml": 3}
# What a float32 graph of a float64 model is known to reach (facts on converters); relative to the row's largest score.
_TOLERANCE = Tolerance(1e-5, 1e-4)
# Words of two letters and more: to Python, and to the expressions of the runtime, whose \w knows ASCII alone. skl2onnx
# would take single letters for words, too, which changes pairs of words.
_WORDS, _WORDS_ELSEWHERE = r"(?u)\b\w\w+\b", r"[\p{L}\p{N}_][\p{L}\p{N}_]+"
_METHODS = ("predict", "predict_proba", "decision_function", "transform")
# What compares numbers with thresholds or with each other, beside forests.
_JUMPING = (AdaBoostRegressor, BaseEncoder, NeighborsBase, RandomForestClassifier, RandomTreesEmbedding)


class SklearnConverter:
    """Whatever scikit-learn calls an estimator."""

    roots = ("sklearn",)

    def accepts(self, source: Any) -> bool:
        return isinstance(source, sklearn.base.BaseEstimator)

    def open_file(self, path: Path) -> Any:
        """The estimator in a skops file; types that skops does not know as safe are refused."""
        import skops.io

        untrusted = skops.io.get_untrusted_types(file=path)
        if untrusted:
            raise UnsupportedSourceError(
                f"{str(path)!r} holds types that skops does not know as safe: {', '.join(untrusted)}. "
                "Load it yourself with skops.io.load(..., trusted=[...]) and give the object."
            )
        return skops.io.load(path)

    def drafts(self, source: Any, example: Any) -> Sequence[Callable[[], Draft]]:
        methods = _methods(source)
        portable, replaced = rewrite(source)
        parts = parts_of(portable)
        table = read_table(source, example, by_column=any(isinstance(part, ColumnTransformer) for part in parts))
        if not all(np.isfinite(thresholds).all() for thresholds in tree_thresholds(portable)):
            # skl2onnx 1.20 never comes back from such a threshold.
            raise UnsupportedSourceError(
                f"{type(source).__name__} has a tree that tells missing values from all others (its threshold is "
                "infinite), which has no portable form yet. Fill missing values in a step before it and train again, "
                "or use HistGradientBoosting."
            )
        for part in parts:
            refuse_ties(part)
        given = _Source(source, methods, portable, tuple(replaced), table)
        return [partial(_draft, given, route) for route in _routes(portable, table)]


converter = SklearnConverter()


class _Source(NamedTuple):
    """What is converted: the estimator itself, and what stands for it in the export."""

    estimator: Any
    methods: Methods
    portable: Any
    replaced: tuple[str, ...]
    table: Table


def _methods(source: Any) -> dict[str, Callable[[Any], Any]]:
    """What gives each answer, by the names we give them."""
    is_grouping = sklearn.base.is_clusterer(source) or sklearn.base.is_outlier_detector(source)
    names = {
        "predict": "label" if sklearn.base.is_classifier(source) or is_grouping else "value",
        "predict_proba": "probabilities",
        "decision_function": "decision_function",
        "transform": "distances" if is_grouping else "transformed",
    }
    found = {names[method]: getattr(source, method) for method in _METHODS if hasattr(source, method)}
    if not found:
        raise UnsupportedSourceError(
            f"{type(source).__name__} has neither predict nor transform for new rows, so there is nothing to serve. "
            "Serve a classifier trained on its labels instead."
        )
    return found


class _Route(NamedTuple):
    """How numbers enter the graph: floating ones in float64 or float32, whole ones as they are or as floating ones."""

    double: bool
    whole: bool


def _routes(portable: Any, table: Table) -> list[_Route]:
    """The routes to try, the likeliest first."""
    has_whole = table.by_column and any(spec.dtype.startswith(("int", "uint")) for spec in table.specs)
    # Where a rounding changes an answer altogether, the rows that are tried may well not show it.
    precisions = (True,) if _jumps_between_float32(portable, table) else (False, True)
    return [_Route(double, whole) for double in precisions for whole in ((False, True) if has_whole else (False,))]


def _jumps_between_float32(portable: Any, table: Table) -> bool:
    """Whether a number's rounding to float32 can change an answer altogether: by a threshold that lies between."""
    rounds_itself = getattr(portable, "rounds_inputs", False) or isinstance(portable, AdaBoostRegressor)
    if not table.is_wide or rounds_itself:
        return False
    return any(getattr(part, "jumps", False) or isinstance(part, _JUMPING) for part in parts_of(portable))


def _draft(source: _Source, route: _Route) -> Draft:
    table = source.table
    wanted = ask_example(source.methods, table)
    model = _export(source, route)
    if route.double:
        cast_before_trees(model)
    outputs = name_outputs(model, table, wanted)
    graph_inputs = [value.name for value in model.graph.input]
    rename(model, dict(zip(graph_inputs, [spec.name for spec in table.specs], strict=True)))
    declare(model, table.specs, outputs)
    names = [spec.name for spec in outputs]

    def reference(tensors: Tensors) -> Mapping[str, Array]:
        answers = ask(source.methods, table, tensors)
        return {name: answers[name] for name in names}

    return Draft(
        model=model,
        signature=Signature(table.specs, outputs),
        example=table.tensors,
        reference=reference,
        origin=_origin(source.estimator),
        steps=_steps(source, route),
        decisions=frozenset(names_in(names, "label")),
        tolerance=_TOLERANCE,
        stages=pipeline_stages(source.estimator, table.rebuild),
    )


def _steps(source: _Source, route: _Route) -> tuple[Step, ...]:
    settings = {"from": "sklearn", "precision": "float64" if route.double else "float32"}
    convert = Step("convert", settings | ({} if not route.whole else {"whole_numbers": "as they are"}))
    return (Step("rewrite", {"classes": ", ".join(source.replaced)}), convert) if source.replaced else (convert,)


def _export(source: _Source, route: _Route) -> Any:
    table = source.table
    names = [spec.name if table.by_column else f"in_{index}" for index, spec in enumerate(table.specs)]
    types = [_graph_type(spec, route) for spec in table.specs]
    for part in parts_of(source.portable):
        if isinstance(part, StandIn):
            part.double = route.double
    try:
        with quiet():
            return convert_sklearn(
                source.portable,
                initial_types=list(zip(names, types, strict=True)),
                options=_options(source.portable),
                target_opset=_OPSETS,
            )
    except Exception as error:
        # skl2onnx raises RuntimeError, NotImplementedError, MissingShapeCalculator and whatever a defect of its raises.
        raise ConversionError(f"skl2onnx {version('skl2onnx')} cannot convert it: {str(error)[:500]}") from error


def _graph_type(spec: Any, route: _Route) -> Any:
    shape = [None, *spec.shape[1:]]
    if spec.dtype == "string":
        return StringTensorType(shape)
    if spec.dtype == "bool":
        return BooleanTensorType(shape)
    if route.whole and spec.dtype.startswith(("int", "uint")) and spec.shape[1:] == (1,):
        return Int64TensorType(shape)
    return DoubleTensorType(shape) if route.double else FloatTensorType(shape)


def _options(portable: Any) -> dict[int, dict[str, Any]]:
    """Plain tensors instead of maps for every estimator that has the choice, and a locale that every machine has."""
    options = {}
    for part in parts_of(portable):
        known = _converter_pool.get(sklearn_operator_name_map.get(type(part)))
        allowed = (known.get_allowed_options() if known is not None else None) or {}
        # A Pipeline hands its options to its classifiers, where these have none of their own.
        maps = "zipmap" in allowed and not isinstance(part, Pipeline)
        settings: dict[str, Any] = {"zipmap": False} if maps else {}
        if isinstance(part, CountVectorizer):
            settings["locale"] = "C"
            if part.analyzer == "word" and part.token_pattern == _WORDS:
                settings["tokenexp"] = _WORDS_ELSEWHERE
        if settings or (hasattr(part, "get_params") and sklearn.base.is_classifier(part)):
            options[id(part)] = settings
    return options


def _origin(source: Any) -> Origin:
    last = source.steps[-1][1] if hasattr(source, "steps") else source
    kind = type(last)
    versions = {"scikit-learn": sklearn.__version__, "skl2onnx": version("skl2onnx")}
    return Origin("sklearn", f"{kind.__module__}.{kind.__qualname__}", versions)
