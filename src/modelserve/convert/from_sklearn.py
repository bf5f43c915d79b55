"""scikit-learn estimators and pipelines, by skl2onnx.

    predict          label (or value)            what `predict` answers, its dtype and shape
    predict_proba    probabilities
    otherwise        decision_function, distances, transformed

The graph computes in float32 where that is faithful, else in float64; the inputs keep the example's dtypes either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import sklearn.base
import sklearn.exceptions
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
from sklearn.pipeline import Pipeline

from modelserve.bundle import Origin, Step
from modelserve.convert.contract import Draft, Tolerance
from modelserve.convert.graph import declare, rename
from modelserve.convert.quiet import quiet
from modelserve.convert.stages import pipeline_stages
from modelserve.convert.trees import cast_before_trees, tree_thresholds
from modelserve.errors import BundleError, ConversionError, ExampleRequiredError, SignatureError, UnsupportedSourceError
from modelserve.session import load
from modelserve.tensors import Array, Signature, Tensors, TensorSpec

_OPSETS = {"": 18, "ai.onnx.ml": 3}
# What a float32 graph of a float64 model is known to reach (facts on converters); relative to the row's largest score.
_TOLERANCE = Tolerance(1e-5, 1e-4)
_METHODS = ("predict", "predict_proba", "decision_function", "transform")
_INPUT = "X"


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
        table = _read_example(source, example)
        if not all(np.isfinite(thresholds).all() for thresholds in tree_thresholds(source)):
            # skl2onnx 1.20 never comes back from such a threshold.
            raise UnsupportedSourceError(
                f"{type(source).__name__} has a tree that tells missing values from all others (its threshold is "
                "infinite), which has no portable form yet. Fill missing values in a step before it and train again, "
                "or use HistGradientBoosting."
            )
        return [partial(_draft, source, table, double=double) for double in (False, True)]


converter = SklearnConverter()


@dataclass(frozen=True, slots=True)
class _Table:
    """The example: tensors by input name, and the way back to what the estimator itself takes."""

    specs: tuple[TensorSpec, ...]
    tensors: Tensors
    rebuild: Callable[[Tensors], Any]
    by_column: bool


def _read_example(source: Any, example: Any) -> _Table:
    if example is None:
        raise ExampleRequiredError(
            f"{type(source).__name__} does not say what it takes. Give rows of the data it was trained on: "
            f"Model(estimator, example=X[:8])"
        )
    if hasattr(example, "columns") and hasattr(example, "iloc"):
        return _read_frame(source, example)
    try:
        array = np.asarray(example)
    except ValueError as error:
        raise SignatureError(f"The example cannot be read as one array ({error}).") from error
    if array.dtype.kind in "UO" and array.ndim == 1:
        return _read_text(array)
    if array.ndim != 2 or array.shape[0] == 0 or array.dtype.kind not in "biufUO":
        raise SignatureError(
            f"An example for {type(source).__name__} has rows and columns, got shape {array.shape} of {array.dtype}. "
            "Give X[:8], with at least one row."
        )
    dtype = "string" if array.dtype.kind in "UO" else array.dtype.name
    spec = TensorSpec(_INPUT, dtype, ("batch", array.shape[1]))
    tensors = {_INPUT: np.ascontiguousarray(array.astype(object) if dtype == "string" else array)}
    return _Table((spec,), tensors, lambda given: given[_INPUT], by_column=False)


def _read_text(array: Array) -> _Table:
    """Documents, one a row, as text vectorisers take them."""
    spec = TensorSpec(_INPUT, "string", ("batch",))
    return _Table((spec,), {_INPUT: array.astype(object)}, lambda given: list(given[_INPUT]), by_column=False)


def _read_frame(source: Any, frame: Any) -> _Table:
    import pandas as pd

    if len(frame) == 0:
        raise SignatureError("The example has no rows. Give at least one, such as df[:8].")
    columns = [str(name) for name in frame.columns]
    dtypes = {str(name): frame[name].dtype for name in frame.columns}
    if not _selects_columns(source) and all(dtype.kind in "biuf" for dtype in dtypes.values()):
        matrix = np.ascontiguousarray(frame.to_numpy())
        spec = TensorSpec(_INPUT, matrix.dtype.name, ("batch", len(columns)), tuple(columns))

        def from_matrix(given: Tensors) -> Any:
            return pd.DataFrame(given[_INPUT], columns=list(frame.columns)).astype(dict(frame.dtypes), errors="ignore")

        return _Table((spec,), {_INPUT: matrix}, from_matrix, by_column=False)
    specs, tensors = [], {}
    for name in columns:
        values = frame[name].to_numpy()
        is_text = values.dtype.kind not in "biuf"
        tensors[name] = (values.astype(object) if is_text else values).reshape(-1, 1)
        specs.append(TensorSpec(name, "string" if is_text else values.dtype.name, ("batch", 1)))

    def rebuild(given: Tensors) -> Any:
        return pd.DataFrame({name: given[name][:, 0] for name in columns}).astype(dict(frame.dtypes), errors="ignore")

    return _Table(tuple(specs), tensors, rebuild, by_column=True)


def _selects_columns(source: Any) -> bool:
    """Whether the estimator picks columns by name somewhere."""
    steps = [step for _, step in source.steps] if isinstance(source, Pipeline) else [source]
    return any(type(step).__name__ == "ColumnTransformer" for step in steps)


def _draft(source: Any, table: _Table, *, double: bool) -> Draft:
    known = _answers(source, table)
    model = _export(source, table, double=double)
    if double:
        cast_before_trees(model)
    outputs = _name_outputs(model, source, table, known)
    graph_inputs = [value.name for value in model.graph.input]
    rename(model, dict(zip(graph_inputs, [spec.name for spec in table.specs], strict=True)))
    declare(model, table.specs, outputs)
    names = [spec.name for spec in outputs]

    def reference(tensors: Tensors) -> Mapping[str, Array]:
        given = table.rebuild(tensors)
        with quiet():
            return {name: _as_tensor(getattr(source, known[name])(given)) for name in names}

    is_label = _is_classifier(source) or hasattr(source, "fit_predict")
    return Draft(
        model=model,
        signature=Signature(table.specs, outputs),
        example=table.tensors,
        reference=reference,
        origin=_origin(source),
        steps=(Step("convert", {"from": "sklearn", "precision": "float64" if double else "float32"}),),
        decisions=frozenset({"label"}) & set(names) if is_label else frozenset(),
        tolerance=_TOLERANCE,
        stages=pipeline_stages(source, table.rebuild),
    )


def _answers(source: Any, table: _Table) -> dict[str, str]:
    """The outputs that the estimator can give, by the name we give them: the method that gives each."""
    first = "label" if _is_classifier(source) or _is_grouping(source) else "value"
    names = {"predict": first, "predict_proba": "probabilities", "decision_function": "decision_function"}
    names["transform"] = "distances" if _is_grouping(source) else "transformed"
    found = {names[method]: method for method in _METHODS if hasattr(source, method)}
    if not found:
        raise UnsupportedSourceError(
            f"{type(source).__name__} has neither predict nor transform for new rows, so there is nothing to serve. "
            "Serve a classifier trained on its labels instead."
        )
    return found


def _is_classifier(source: Any) -> bool:
    return bool(sklearn.base.is_classifier(source))


def _is_grouping(source: Any) -> bool:
    """Clusterers and outlier detectors: their predict answers labels, too."""
    return bool(sklearn.base.is_clusterer(source) or sklearn.base.is_outlier_detector(source))


def _export(source: Any, table: _Table, *, double: bool) -> Any:
    names = [spec.name if table.by_column else f"in_{index}" for index, spec in enumerate(table.specs)]
    types = [_graph_type(spec, double) for spec in table.specs]
    try:
        with quiet():
            return convert_sklearn(
                source,
                initial_types=list(zip(names, types, strict=True)),
                options=_options(source),
                target_opset=_OPSETS,
            )
    except Exception as error:
        # skl2onnx raises RuntimeError, NotImplementedError, MissingShapeCalculator and whatever a defect of its raises.
        raise ConversionError(f"skl2onnx {version('skl2onnx')} cannot convert it: {str(error)[:500]}") from error


def _graph_type(spec: TensorSpec, double: bool) -> Any:
    shape = [None, *spec.shape[1:]]
    if spec.dtype == "string":
        return StringTensorType(shape)
    if spec.dtype == "bool":
        return BooleanTensorType(shape)
    if spec.dtype.startswith(("int", "uint")) and spec.shape[1:] == (1,):
        return Int64TensorType(shape)
    return DoubleTensorType(shape) if double else FloatTensorType(shape)


def _options(source: Any) -> dict[int, dict[str, Any]]:
    """Plain tensors instead of maps, for every estimator that has the choice."""
    last = source.steps[-1][1] if isinstance(source, Pipeline) else source
    alias = sklearn_operator_name_map.get(type(last))
    known = _converter_pool.get(alias)
    allowed = known.get_allowed_options() if known is not None else None
    return {id(last): {"zipmap": False}} if allowed and "zipmap" in allowed else {}


def _name_outputs(model: Any, source: Any, table: _Table, known: dict[str, str]) -> tuple[TensorSpec, ...]:
    """Give the graph's outputs our names, and the source's dtypes and shapes.

    Each output is recognised by the values it has on the example, not by what the exporter calls it.
    """
    try:
        session = load(model.SerializeToString())
    except BundleError as error:
        raise ConversionError(f"The converted graph is not valid: {error}") from error
    feeds = {value.name: value for value in session.get_inputs()}
    given = {
        name: _fed(table.tensors[spec.name], feeds[name].type) for name, spec in zip(feeds, table.specs, strict=True)
    }
    graph_names = [value.name for value in session.get_outputs()]
    try:
        got = dict(zip(graph_names, session.run(graph_names, given), strict=True))
    except Exception as error:
        raise ConversionError(f"onnxruntime cannot run the converted graph: {error}") from error
    rows = table.rebuild(table.tensors)
    try:
        with quiet():
            wanted = {name: _as_tensor(getattr(source, method)(rows)) for name, method in known.items()}
    except (ValueError, TypeError, KeyError, sklearn.exceptions.NotFittedError) as error:
        raise ConversionError(f"The estimator refuses the example: {error}") from error
    matches = _match(got, wanted)
    first = next(iter(wanted))
    if first not in matches.values():
        raise ConversionError(f"No output of the converted graph is close to the source's {known[first]!r}.")
    keep = {old: new for old, new in matches.items() if new is not None}
    for value in [value for value in model.graph.output if value.name not in keep]:
        model.graph.output.remove(value)
    rename(model, keep)
    order = [name for name in wanted if name in keep.values()]
    values = {value.name: value for value in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(values[name] for name in order)
    return tuple(_output_spec(name, wanted[name]) for name in order)


def _match(got: Mapping[str, Any], wanted: Mapping[str, Array]) -> dict[str, str]:
    """Which graph output is which of the source's answers; the nearest in value, each taken once."""
    pairs = []
    for old, answer in got.items():
        array = _as_tensor(answer)
        for rank, (new, want) in enumerate(wanted.items()):
            if array.size == want.size and (array.dtype.kind in "OU") == (want.dtype.kind in "OU"):
                pairs.append((_distance(array, want), rank, old, new))
    matches: dict[str, str] = {}
    for distance, _, old, new in sorted(pairs):
        if old not in matches and new not in matches.values() and distance < 0.5:
            matches[old] = new
    return matches


def _distance(array: Array, want: Array) -> float:
    """Share of unequal elements for text; else the median error, as a share of the answers' size."""
    flat, exact = array.reshape(-1), want.reshape(-1)
    if want.dtype.kind in "OU":
        return float((flat != exact).mean())
    exact = exact.astype(np.float64)
    scale = float(np.abs(exact).max(initial=0.0)) or 1.0
    return float(np.median(np.abs(flat.astype(np.float64) - exact)) / scale)


def _output_spec(name: str, want: Array) -> TensorSpec:
    dtype = "string" if want.dtype.kind in "OU" else want.dtype.name
    return TensorSpec(name, dtype, ("batch", *want.shape[1:]))


def _fed(array: Array, kind: str) -> Array:
    if array.dtype.kind == "O":
        return array
    dtype = {"tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}.get(kind, np.float32)
    return array.astype(dtype)


def _as_tensor(answer: Any) -> Array:
    if isinstance(answer, list):  # multi-output classifiers give a list of arrays
        raise UnsupportedSourceError("An estimator whose probabilities are a list of arrays cannot be served yet.")
    dense = answer.toarray() if hasattr(answer, "toarray") else answer
    array = np.asarray(dense)
    return array.astype(object) if array.dtype.kind == "U" else array


def _origin(source: Any) -> Origin:
    last = source.steps[-1][1] if isinstance(source, Pipeline) else source
    kind = type(last)
    versions = {"scikit-learn": sklearn.__version__, "skl2onnx": version("skl2onnx")}
    return Origin("sklearn", f"{kind.__module__}.{kind.__qualname__}", versions)
