"""An estimator in other words: as estimators that skl2onnx knows, and that answer the same.

    source ──rules, deep inside too──► an equal estimator, and what was replaced

The source itself is never changed: what holds others is copied, what it holds is shared. Nothing of this is believed;
the certificate compares the graph with the source as it was given.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import sklearn.base
import sklearn.calibration
import sklearn.compose
import sklearn.ensemble
import sklearn.multiclass
import sklearn.multioutput
import sklearn.pipeline
import sklearn.utils

from modelserve.convert.from_sklearn_rules import rule_for
from modelserve.convert.from_sklearn_standins import StandIn

# What others make with the help of estimators, and skl2onnx knows as such.
_PREDICTORS = (
    sklearn.ensemble.VotingClassifier,
    sklearn.ensemble.VotingRegressor,
    sklearn.ensemble.StackingClassifier,
    sklearn.ensemble.StackingRegressor,
    sklearn.ensemble.BaggingClassifier,
    sklearn.ensemble.BaggingRegressor,
    sklearn.calibration.CalibratedClassifierCV,
    sklearn.multiclass.OneVsRestClassifier,
    sklearn.multiclass.OneVsOneClassifier,
    sklearn.multioutput.MultiOutputClassifier,
    sklearn.multioutput.MultiOutputRegressor,
)
_TRANSFORMERS = (sklearn.pipeline.FeatureUnion, sklearn.compose.ColumnTransformer)


def rewrite(source: Any) -> tuple[Any, list[str]]:
    """An estimator that answers as `source` does, and the names of the classes that were replaced."""
    rewriting = _Rewriting()
    return rewriting.part(source, last=True), sorted(rewriting.replaced)


def parts_of(estimator: Any) -> list[Any]:
    """An estimator and all that it holds, however deep; those of `rewrite`'s result, where that is given."""
    found: list[Any] = []
    rewriting = _Rewriting(visit=found.append)
    rewriting.part(estimator, last=True)
    return found


class _Rewriting:
    """One walk through an estimator; what stands in several places is rewritten once."""

    def __init__(self, visit: Any = None) -> None:
        self.replaced: set[str] = set()
        self._visit = visit
        self._known: dict[tuple[int, bool], Any] = {}

    def part(self, part: Any, *, last: bool) -> Any:
        """One estimator; `last` says that its `predict` is meant where it has that and `transform`, too."""
        key = (id(part), last)
        if key not in self._known:
            self._known[key] = self._other(part, last)
        return self._known[key]

    def _other(self, part: Any, last: bool) -> Any:
        if self._visit is not None:
            self._visit(part)
        else:
            other = _in_other_words(part, last)
            if other is not None:
                self.replaced.add(type(part).__name__)
                return self.part(other, last=last)
        if isinstance(part, sklearn.pipeline.Pipeline):
            return self._pipeline(part, last)
        names = _names_of_held(part)
        if not names:
            return part
        twin = copy.copy(part)
        for name in names:
            setattr(twin, name, self._held(vars(part)[name], last=not isinstance(part, _TRANSFORMERS)))
        return twin

    def _pipeline(self, part: Any, last: bool) -> Any:
        steps = [(name, step) for name, step in part.steps if step is not None and step != "passthrough"]
        ends = [last and index == len(steps) - 1 for index in range(len(steps))]
        pairs = zip(steps, ends, strict=True)
        return sklearn.pipeline.Pipeline([(name, self.part(step, last=end)) for (name, step), end in pairs])

    def _held(self, value: Any, *, last: bool) -> Any:
        """Whatever estimators an attribute holds: in lists, in (name, estimator, ...) tuples, in dictionaries."""
        if hasattr(value, "get_params") or _is_calibrated(value):
            return self.part(value, last=last)
        if isinstance(value, dict):
            return type(value)(**{name: self._held(item, last=last) for name, item in value.items()})
        if isinstance(value, list | tuple):
            return type(value)(self._held(item, last=last) for item in value)
        if isinstance(value, np.ndarray) and value.dtype == object:
            changed = np.empty(value.shape, object)
            changed.ravel()[:] = [self._held(item, last=last) for item in value.ravel()]
            return changed
        return value


def _in_other_words(part: Any, last: bool) -> Any:
    rule = rule_for(part)
    try:
        other = rule(part, last) if rule is not None else None
    except AttributeError:
        return None  # not trained: a mere setting of what holds it, or refused by skl2onnx
    if isinstance(other, StandIn) and hasattr(part, "n_features_in_"):
        other.n_features_in_ = part.n_features_in_
    return other


def _names_of_held(part: Any) -> list[str]:
    """The attributes that hold trained estimators."""
    if _is_calibrated(part):
        return ["estimator"]
    if not isinstance(part, _PREDICTORS + _TRANSFORMERS):
        return []
    return [name for name in vars(part) if name.endswith("_") or name == "transformer_list"]


def _is_calibrated(part: Any) -> bool:
    """One of the classifiers in a CalibratedClassifierCV, which are no estimators."""
    return type(part).__name__ == "_CalibratedClassifier"
