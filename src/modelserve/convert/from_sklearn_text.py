"""Words that are counted: what skl2onnx errs on in scikit-learn's text vectorisers.

It takes log(count + 1) where `sublinear_tf` means 1 + log(count), and 0 for a word that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.pipeline import Pipeline

from modelserve.convert.drawing import Drawing, Part, gather
from modelserve.convert.from_sklearn_encoders import by_length
from modelserve.convert.from_sklearn_standins import TransformerStandIn


def counted_first(part: Any, _last: bool) -> Any:
    """A TfidfVectorizer of logarithms, as counts that are weighted."""
    if not part.sublinear_tf:
        return None
    counts = CountVectorizer(**{name: getattr(part, name) for name in CountVectorizer().get_params()})
    counts.vocabulary_, counts.fixed_vocabulary_ = part.vocabulary_, part.fixed_vocabulary_
    weights = TfidfTransformer(norm=part.norm, use_idf=part.use_idf, smooth_idf=part.smooth_idf, sublinear_tf=True)
    weights.n_features_in_ = len(part.vocabulary_)
    if part.use_idf:
        weights.idf_ = part.idf_
    return Pipeline([("counts", counts), ("weights", weights)])


def logarithms(part: Any, _last: bool) -> Any:
    """A TfidfTransformer of logarithms."""
    if not part.sublinear_tf:
        return None
    weights = part.idf_[np.newaxis] if part.use_idf else np.ones((1, part.n_features_in_))

    def paint(parts: Sequence[Part], drawing: Drawing, double: bool) -> Mapping[str, str]:
        counts = gather(parts, drawing, double=double)
        zero, one = drawing.row(np.zeros((1, 1)), double), drawing.row(np.ones((1, 1)), double)
        is_there = drawing.add("Greater", [counts, zero])
        logarithm = drawing.add("Log", [drawing.add("Where", [is_there, counts, one])])
        frequency = drawing.add("Where", [is_there, drawing.add("Add", [logarithm, one]), zero])
        value = drawing.add("Mul", [frequency, drawing.row(weights, double)])
        return {"value": value if part.norm is None else by_length(value, part.norm, drawing, double)}

    return TransformerStandIn(paint, part.n_features_in_)
