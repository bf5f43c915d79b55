"""Steps of scikit-learn that prepare columns, drawn by us: missing values, categories, powers.

skl2onnx fills missing values in float32 only, which closes the float64 route of every pipeline that does; and knows
neither rare categories nor columns that tell where values were missing. Every public function here is a rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from modelserve.convert.drawing import Drawing, Part, gather
from modelserve.convert.from_sklearn_standins import EncoderStandIn, TransformerStandIn
from modelserve.tensors import Array


def imputer(part: Any, _last: bool) -> Any:
    """A SimpleImputer of numbers."""
    statistics = np.asarray(part.statistics_)
    if statistics.dtype.kind not in "biuf" or not isinstance(part.missing_values, int | float | np.number):
        return None
    keeps_all = part.strategy == "constant" or part.keep_empty_features
    kept = np.arange(len(statistics)) if keeps_all else np.flatnonzero(~np.isnan(statistics))
    told = np.asarray(part.indicator_.features_) if part.add_indicator else np.zeros(0, int)

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        x, is_missing = _missing(part, parts, drawing, double)
        filled = drawing.add("Where", [is_missing, drawing.row(statistics, double), x])
        answers = [_columns(filled, kept, drawing)]
        if len(told):
            answers.append(drawing.add("CastLike", [_columns(is_missing, told, drawing), x]))
        return {"value": drawing.add("Concat", answers, axis=1)}

    return TransformerStandIn(paint, len(kept) + len(told))


def indicator(part: Any, _last: bool) -> Any:
    """A MissingIndicator of numbers."""
    if not isinstance(part.missing_values, int | float | np.number):
        return None
    told = np.asarray(part.features_)
    if not len(told):
        return None

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        return {"value": _columns(_missing(part, parts, drawing, double)[1], told, drawing)}

    return TransformerStandIn(paint, len(told))


def one_hot(part: Any, _last: bool) -> Any:
    """A OneHotEncoder; its answer is dense."""
    if _has_missing(part.categories_):
        return None
    tables = [_one_hot_table(part, feature) for feature in range(len(part.categories_))]

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        answers = []
        for column, categories, (table, unknown) in zip(_split(parts, drawing), part.categories_, tables, strict=True):
            hits = _hits(column, categories, drawing, double)
            answer = drawing.add("MatMul", [hits, drawing.row(table, double)])
            if unknown.any():
                others = drawing.add("Sub", [drawing.row(np.ones((1, 1)), double), _sum(hits, drawing)])
                answer = drawing.add("Add", [answer, drawing.add("MatMul", [others, drawing.row(unknown, double)])])
            answers.append(answer)
        return {"value": drawing.add("Concat", answers, axis=1)}

    return EncoderStandIn(paint, sum(table.shape[1] for table, _ in tables), jumps=_has_numbers(part.categories_))


def ordinal(part: Any, _last: bool) -> Any:
    """An OrdinalEncoder."""
    if _has_missing(part.categories_):
        return None
    unknown = part.unknown_value if part.handle_unknown == "use_encoded_value" else 0
    tables = [_groups(part, feature).reshape(-1, 1) for feature in range(len(part.categories_))]

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        answers = []
        for column, categories, table in zip(_split(parts, drawing), part.categories_, tables, strict=True):
            hits = _hits(column, categories, drawing, double)
            number = drawing.add("MatMul", [hits, drawing.row(table, double)])
            is_known = drawing.add("Cast", [_sum(hits, drawing)], to=TensorProto.BOOL)
            answers.append(drawing.add("Where", [is_known, number, drawing.row(np.array([[unknown]]), double)]))
        return {"value": drawing.add("Concat", answers, axis=1)}

    return EncoderStandIn(paint, len(tables), jumps=_has_numbers(part.categories_))


def binarizer(part: Any, _last: bool) -> Any:
    """A Binarizer."""

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        x = gather(parts, drawing, double=double)
        is_above = drawing.add("Greater", [x, drawing.row(np.array([[part.threshold]]), double)])
        return {"value": drawing.add("CastLike", [is_above, x])}

    return TransformerStandIn(paint, part.n_features_in_, jumps=True)


def normalizer(part: Any, _last: bool) -> Any:
    """A Normalizer: each row by its own length."""

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        return {"value": by_length(gather(parts, drawing, double=double), part.norm, drawing, double)}

    return TransformerStandIn(paint, part.n_features_in_)


def by_length(x: str, norm: str, drawing: Drawing, double: bool) -> str:
    """Each row divided by its length in the norm "l1", "l2" or "max"; a row of zeros stays one."""
    size = drawing.add("Abs", [x])
    if norm == "max":
        length = drawing.add("ReduceMax", [size, drawing.weight(np.array([1], np.int64))], keepdims=1)
    elif norm == "l1":
        length = _sum(size, drawing)
    else:
        length = drawing.add("Sqrt", [_sum(drawing.add("Mul", [x, x]), drawing)])
    is_nothing = drawing.add("Equal", [length, drawing.row(np.zeros((1, 1)), double)])
    divisor = drawing.add("Where", [is_nothing, drawing.row(np.ones((1, 1)), double), length])
    return drawing.add("Div", [x, divisor])


def bins(part: Any, _last: bool) -> Any:
    """A KBinsDiscretizer; its answer is dense."""
    is_one_hot = part.encode != "ordinal"

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        answers = []
        for column, edges, count in zip(_split(parts, drawing), part.bin_edges_, part.n_bins_, strict=True):
            x = gather([column], drawing, double=double)
            inner = drawing.row(np.asarray(edges)[np.newaxis, 1:-1], double)
            place = _sum(drawing.add("CastLike", [drawing.add("GreaterOrEqual", [x, inner]), x]), drawing)
            if is_one_hot:
                is_place = drawing.add("Equal", [place, drawing.row(np.arange(count)[np.newaxis], double)])
                place = drawing.add("CastLike", [is_place, x])
            answers.append(place)
        return {"value": drawing.add("Concat", answers, axis=1)}

    return TransformerStandIn(paint, int(sum(part.n_bins_)) if is_one_hot else len(part.n_bins_), jumps=True)


def power(part: Any, _last: bool) -> Any:
    """A PowerTransformer."""
    exponents = np.asarray(part.lambdas_, np.float64)
    scaler = part._scaler if part.standardize else None  # noqa: SLF001  # there is no public way to it
    draw = _yeo_johnson if part.method == "yeo-johnson" else _powers

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        x = gather(parts, drawing, double=double)
        value = draw(x, exponents, drawing, double)
        if scaler is not None:
            value = drawing.add("Sub", [value, drawing.row(scaler.mean_, double)])
            value = drawing.add("Div", [value, drawing.row(scaler.scale_, double)])
        return {"value": drawing.add("Where", [drawing.add("IsNaN", [x]), x, value])}

    return TransformerStandIn(paint, len(exponents))


def _missing(part: Any, parts: Sequence[Part], drawing: Drawing, double: bool) -> tuple[str, str]:
    """The table, and where it has a missing value."""
    x = gather(parts, drawing, double=double)
    if np.isnan(part.missing_values):
        return x, drawing.add("IsNaN", [x])
    return x, drawing.add("Equal", [x, drawing.row(np.array([[part.missing_values]]), double)])


def _columns(table: str, columns: Array, drawing: Drawing) -> str:
    return drawing.add("Gather", [table, drawing.weight(columns.astype(np.int64))], axis=1)


def _split(parts: Sequence[Part], drawing: Drawing) -> Iterator[Part]:
    """Every column by itself, (rows, 1)."""
    for part in parts:
        if part.width == 1:
            yield part
            continue
        for column in range(part.width):
            yield Part(_columns(part.name, np.array([column]), drawing), 1, part.is_text)


def _hits(column: Part, categories: Array, drawing: Drawing, double: bool) -> str:
    """1 where the column has a category, (rows, categories)."""
    if column.is_text:
        known = [str(category) for category in categories]
        x, wanted = gather([column], drawing, double=double, codes={0: known}), np.arange(len(known))
    else:
        x, wanted = gather([column], drawing, double=double), np.asarray(categories, np.float64)
    return drawing.add("CastLike", [drawing.add("Equal", [x, drawing.row(wanted[np.newaxis], double)]), x])


def _sum(hits: str, drawing: Drawing) -> str:
    """The sum of each row, (rows, 1): of `_hits`, 1 where there is any."""
    return drawing.add("ReduceSum", [hits, drawing.weight(np.array([1], np.int64))], keepdims=1)


def _groups(part: Any, feature: int) -> Array:
    """The place of each category after the rare ones have become one, which is the last."""
    places = _places_with_rare(part, feature)
    return np.arange(len(part.categories_[feature])) if places is None else np.asarray(places)


def _places_with_rare(part: Any, feature: int) -> Array | None:
    mappings = getattr(part, "_default_to_infrequent_mappings", None)
    return mappings[feature] if mappings is not None else None


def _one_hot_table(part: Any, feature: int) -> tuple[Array, Array]:
    """What each category answers, (categories, columns); and what an unknown one does, (1, columns)."""
    places = _groups(part, feature)
    table = np.eye(places.max() + 1)
    has_rare = _places_with_rare(part, feature) is not None
    takes_rare = part.handle_unknown in {"infrequent_if_exist", "warn"} and has_rare
    unknown = table[-1:] if takes_rare else np.zeros((1, len(table)))
    dropped = None if part.drop_idx_ is None else part._drop_idx_after_grouping[feature]  # noqa: SLF001  # no public way
    if dropped is not None:
        table, unknown = np.delete(table, dropped, axis=1), np.delete(unknown, dropped, axis=1)
    return table[places], unknown


def _has_missing(categories: Sequence[Array]) -> bool:
    return any(each is None or each != each for known in categories for each in known)  # NaN


def _has_numbers(categories: Sequence[Array]) -> bool:
    return any(known.dtype.kind in "biuf" for known in categories)


def _powers(x: str, exponents: Array, drawing: Drawing, double: bool) -> str:
    """(x ** exponent - 1) / exponent, column by column; the logarithm where that is 0."""
    is_log = np.abs(exponents) < np.finfo(np.float64).eps
    safe = drawing.row(np.where(is_log, 1.0, exponents), double)
    raised = drawing.add("Sub", [drawing.add("Pow", [x, safe]), drawing.row(np.ones(1), double)])
    curved = drawing.add("Div", [raised, safe])
    return drawing.add("Where", [drawing.weight(is_log), drawing.add("Log", [x]), curved])


def _yeo_johnson(x: str, exponents: Array, drawing: Drawing, double: bool) -> str:
    """Powers of 1 + x for what is above 0, and of 1 - x with the complement to 2 for what is below."""
    one, nothing = drawing.row(np.ones(1), double), drawing.row(np.zeros(1), double)
    is_below = drawing.add("Less", [x, nothing])
    above = drawing.add("Where", [is_below, nothing, x])
    below = drawing.add("Where", [is_below, drawing.add("Neg", [x]), nothing])
    right = _powers(drawing.add("Add", [above, one]), exponents, drawing, double)
    left = _powers(drawing.add("Add", [below, one]), 2.0 - exponents, drawing, double)
    return drawing.add("Where", [is_below, drawing.add("Neg", [left]), right])
