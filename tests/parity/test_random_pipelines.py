"""Pipelines drawn at random: an accepted bundle decides as its source on rows that the conversion has not seen.

steps (0 to 3) + model ──fit on some rows──► source ──convert with a few──► bundle ──compare──► the rest
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest, SelectPercentile, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from modelserve.bundle import Bundle
from modelserve.convert import convert
from modelserve.errors import ConversionError
from modelserve.session import Session

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),
]  # what estimators say of unusual settings is not the matter here

Make = Callable[[], Any]

SCALERS: list[Make] = [StandardScaler, MinMaxScaler, RobustScaler, MaxAbsScaler, Normalizer, PowerTransformer]
STEPS: list[Make] = [
    *SCALERS,
    lambda: PCA(2),
    lambda: TruncatedSVD(2),
    lambda: SelectKBest(k=2),
    lambda: SelectPercentile(percentile=60),
    lambda: VarianceThreshold(1e-6),
    lambda: PolynomialFeatures(2),
    lambda: FunctionTransformer(np.arctan),  # no portable form: must be refused
    lambda: FunctionTransformer(np.abs),
    lambda: Binarizer(threshold=0.25),
    lambda: KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"),
    lambda: FeatureUnion([("turned", PCA(2)), ("scaled", StandardScaler())]),
    lambda: SimpleImputer(add_indicator=False),
]
CLASSIFIERS: list[Make] = [
    lambda: LogisticRegression(max_iter=300),
    lambda: SGDClassifier(random_state=0, loss="log_loss"),
    LinearSVC,
    SVC,
    GaussianNB,
    LinearDiscriminantAnalysis,
    KNeighborsClassifier,
    lambda: DecisionTreeClassifier(random_state=0),
    lambda: RandomForestClassifier(10, random_state=0),
    lambda: ExtraTreesClassifier(10, random_state=0),
    lambda: GradientBoostingClassifier(n_estimators=10, random_state=0),
    lambda: HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=8),
    lambda: AdaBoostClassifier(n_estimators=5, random_state=0),
    lambda: MLPClassifier((8,), max_iter=60, random_state=0),
    lambda: CalibratedClassifierCV(DecisionTreeClassifier(max_depth=4, random_state=0), cv=2),
    lambda: VotingClassifier([("a", GaussianNB()), ("b", RandomForestClassifier(5, random_state=0))], voting="soft"),
    lambda: StackingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(random_state=0))], cv=2),
    lambda: xgboost.XGBClassifier(n_estimators=10, n_jobs=1),
    lambda: lightgbm.LGBMClassifier(n_estimators=10, min_child_samples=5, n_jobs=1, verbose=-1),
    lambda: catboost.CatBoostClassifier(10, depth=3, verbose=0, allow_writing_files=False, thread_count=1),
]
REGRESSORS: list[Make] = [
    LinearRegression,
    Ridge,
    lambda: ElasticNet(alpha=0.1),
    SVR,
    KNeighborsRegressor,
    lambda: DecisionTreeRegressor(random_state=0),
    lambda: RandomForestRegressor(10, random_state=0),
    lambda: BaggingRegressor(DecisionTreeRegressor(), 5, random_state=0),
    lambda: GradientBoostingRegressor(n_estimators=10, random_state=0),
    lambda: HistGradientBoostingRegressor(max_iter=5, max_leaf_nodes=8),
    lambda: MLPRegressor((8,), max_iter=60, random_state=0),
    lambda: xgboost.XGBRegressor(n_estimators=10, n_jobs=1),
    lambda: lightgbm.LGBMRegressor(n_estimators=10, min_child_samples=5, n_jobs=1, verbose=-1),
    lambda: catboost.CatBoostRegressor(iterations=10, depth=3, verbose=0, allow_writing_files=False, thread_count=1),
]
GROUPERS: list[Make] = [lambda: KMeans(3, n_init=1, random_state=0)]

_TABLES = {load.__name__: load(return_X_y=True) for load in (load_iris, load_wine, load_breast_cancer, load_diabetes)}


class Task(NamedTuple):
    """A source to train, and what on."""

    source: Any
    rows: Any
    target: Any


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """A pipeline over a matrix, or over a table of several kinds of columns."""
    is_regression = draw(st.booleans())
    name = "load_diabetes" if is_regression else draw(st.sampled_from(["load_iris", "load_wine", "load_breast_cancer"]))
    x, y = _TABLES[name]
    x = x[:, : draw(st.integers(3, 8))] * draw(st.sampled_from([1.0, 1.0, 1e-3, 1e4]))
    model = draw(st.sampled_from(REGRESSORS if is_regression else [*CLASSIFIERS, *GROUPERS]))()
    if not is_regression and draw(st.booleans()):
        y = np.array(["zero", "one", "two"])[y]
    steps = [draw(st.sampled_from(STEPS))() for _ in range(draw(st.integers(0, 2)))]
    if draw(st.booleans()):
        return Task(_pipeline([draw(columns()), *steps, model]), _frame(x, draw(st.integers(0, 99))), y)
    x = x.astype(draw(st.sampled_from([np.float64, np.float64, np.float32])))
    if draw(st.booleans()):
        x = np.where(np.random.default_rng(0).random(x.shape) < 0.1, np.nan, x).astype(x.dtype)
        if draw(st.booleans()):
            steps = [SimpleImputer(strategy=draw(st.sampled_from(["mean", "median", "most_frequent"]))), *steps]
    return Task(_pipeline([*steps, model]), x, y)


@st.composite
def columns(draw: st.DrawFn) -> ColumnTransformer:
    """What makes numbers of the columns of `_frame`."""
    number = Pipeline(
        [("fill", SimpleImputer(add_indicator=draw(st.booleans()))), ("scale", draw(st.sampled_from(SCALERS))())]
    )
    word = draw(
        st.sampled_from(
            [
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                OneHotEncoder(handle_unknown="ignore", drop="first", sparse_output=False),
                OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=30, sparse_output=False),
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
            ]
        )
    )
    rest = draw(st.sampled_from(["drop", "passthrough"]))
    numbers = draw(st.sampled_from([["a"], ["a", "count"], ["b", "a", "count"]]))
    return ColumnTransformer([("numbers", number, numbers), ("words", clone(word), ["city"])], remainder=rest)


def _frame(x: Any, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "a": np.where(random.random(len(x)) < 0.1, np.nan, x[:, 0]),
            "count": np.round(np.abs(x[:, 1]) * 10).astype(np.int64),
            "city": np.array(["Bonn", "Köln", "Ulm", "Rom"])[
                np.digitize(x[:, 2], np.quantile(x[:, 2], [0.3, 0.6, 0.97]))
            ],
            "b": x[:, 1],
        }
    )


def _pipeline(steps: list[Any]) -> Pipeline:
    return Pipeline([(f"step_{index}", step) for index, step in enumerate(steps)])


def check(task: Task) -> str:
    """Convert with a few rows, and compare on the others; what became of it."""
    order = np.random.default_rng(1).permutation(len(task.rows))
    known, fresh = np.split(order, [min(150, len(order) // 2)])
    take = (lambda at: task.rows.iloc[at]) if hasattr(task.rows, "iloc") else (lambda at: task.rows[at])
    try:
        source = task.source.fit(take(known), task.target[known])
        source.predict(take(fresh))
    except Exception:  # noqa: BLE001  # an estimator refuses this data or these settings, by whatever error
        assume(False)
    try:
        bundle = convert(source, take(known[:40]))
    except ConversionError as error:
        refusal = str(error)
        return f"refused: {refusal}"
    assert isinstance(bundle, Bundle)
    compare(bundle, source, take(fresh))
    return "converted"


def compare(bundle: Bundle, source: Any, rows: Any) -> None:
    names = [spec.name for spec in bundle.signature.outputs]
    found = Session(bundle).run(bundle.signature.check(rows).tensors, names)
    wanted = np.asarray(source.predict(rows))
    got = found[bundle.signature.primary].reshape(wanted.shape)
    if bundle.signature.primary != "label":
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3 * scale)
        return
    changed = got != wanted
    if changed.any() and is_classifier(source):
        changed &= ~_is_tie(source, rows)
    assert not changed.any(), f"{int(changed.sum())} of {len(wanted)} decisions changed"
    if "probabilities" in found:
        np.testing.assert_allclose(found["probabilities"], source.predict_proba(rows), atol=1e-3)


def _is_tie(source: Any, rows: Any) -> Any:
    """Rows whose two best scores are equal but for float32."""
    scores = source.predict_proba(rows) if hasattr(source, "predict_proba") else source.decision_function(rows)
    if scores.ndim == 1:
        return np.abs(scores) <= 1e-4 * np.abs(scores).max()
    best = np.sort(scores, axis=1)
    return best[:, -1] - best[:, -2] <= 2e-4 * np.abs(best).max(axis=1)


_settings = functools.partial(
    settings, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@pytest.mark.long
@_settings(max_examples=15, derandomize=True)
@given(tasks())
def test_what_is_accepted_decides_as_its_source(task: Task) -> None:
    check(task)


@pytest.mark.long
@pytest.mark.timeout(1200)
@_settings(max_examples=250)
@given(tasks())
def test_what_is_accepted_decides_as_its_source_many_times(task: Task) -> None:
    check(task)
