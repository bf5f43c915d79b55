"""scikit-learn on its own data sets: the bundle decides as the estimator does, on rows it was not converted with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from asking import bundle_of
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeRegressor

from modelserve.bundle import Bundle
from modelserve.convert import convert
from modelserve.errors import (
    ConversionError,
    ExampleRequiredError,
    SignatureError,
    UnfaithfulError,
    UnsupportedSourceError,
)
from modelserve.session import Session

IRIS, CANCER, DIGITS, DIABETES = (
    load(return_X_y=True) for load in (load_iris, load_breast_cancer, load_digits, load_diabetes)
)

CLASSIFIERS: list[tuple[Any, tuple[Any, Any]]] = [
    (LogisticRegression(max_iter=3000), DIGITS),
    (RandomForestClassifier(20, random_state=0), DIGITS),
    (HistGradientBoostingClassifier(max_iter=10), IRIS),
    (GradientBoostingClassifier(n_estimators=10), CANCER),
    (SVC(), IRIS),
    (LinearSVC(), IRIS),
    (GaussianNB(), IRIS),
    (make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=500, tol=1e-3, random_state=0)), IRIS),
    (make_pipeline(StandardScaler(), PCA(5), LogisticRegression()), CANCER),
    # A scaler in float32 would move values across the trees' thresholds.
    (make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)), CANCER),
    (KMeans(3, n_init=2, random_state=0), IRIS),
    (IsolationForest(n_estimators=10, random_state=0), IRIS),
]

REGRESSORS: list[Any] = [
    Ridge(),
    DecisionTreeRegressor(max_depth=6),
    ExtraTreesRegressor(10, random_state=0),
    GradientBoostingRegressor(n_estimators=10),
]


def answer(bundle: Bundle, rows: Any, *names: str) -> Any:
    answers = Session(bundle).run(bundle.signature.check(rows).tensors, names)
    return answers if names else answers[bundle.signature.primary]


@pytest.mark.parametrize(("estimator", "data"), CLASSIFIERS, ids=lambda value: type(value).__name__)
def test_decisions_are_equal_on_all_rows(estimator: Any, data: Any) -> None:
    x, y = data
    estimator.fit(x, y)
    bundle = bundle_of(estimator, x[:64])
    labels, wanted = answer(bundle, x), estimator.predict(x)
    assert labels.dtype == wanted.dtype
    np.testing.assert_array_equal(labels, wanted)
    assert bundle.rows_independent
    if hasattr(estimator, "predict_proba"):
        shares = answer(bundle, x, "probabilities")["probabilities"]
        # The graph computes in float32: its spacing near 1 is 6e-8, and a sum of some hundred terms loses two digits.
        np.testing.assert_allclose(shares, estimator.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("estimator", REGRESSORS, ids=lambda value: type(value).__name__)
def test_values_are_close_in_the_sources_shape_and_dtype(estimator: Any) -> None:
    x, y = DIABETES
    estimator.fit(x, y)
    values, wanted = answer(bundle_of(estimator, x[:64]), x), estimator.predict(x)
    assert values.dtype == wanted.dtype
    assert values.shape == wanted.shape
    np.testing.assert_allclose(values, wanted, rtol=1e-4)  # float32 thresholds and sums


def test_string_labels_come_back_as_text() -> None:
    x, y = IRIS
    names = load_iris().target_names[y]
    model = LogisticRegression(max_iter=500).fit(x, names)
    labels = answer(bundle_of(model, x[::10]), x)
    assert labels.tolist() == model.predict(x).tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_the_input_keeps_the_examples_dtype(dtype: Any) -> None:
    x, y = DIGITS
    model = LogisticRegression(max_iter=300).fit(x.astype(dtype), y)
    bundle = bundle_of(model, x[:32].astype(dtype))
    assert bundle.signature.inputs[0].dtype == np.dtype(dtype).name
    np.testing.assert_array_equal(answer(bundle, x.astype(dtype)), model.predict(x.astype(dtype)))


def test_a_pipeline_over_a_table_takes_columns_by_name_in_any_order_and_unseen_categories() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 80, 300),
            "income": random.normal(3e4, 1e4, 300),
            "city": random.choice(["Bonn", "Köln", "Ulm"], 300),
        }
    )
    target = (frame["income"] + (frame["city"] == "Ulm") * 1e4 > 3.2e4).astype(int)
    encode = ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "income"]), ("words", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    )
    model = make_pipeline(encode, LogisticRegression()).fit(frame, target)
    bundle = bundle_of(model, frame[:50])
    assert [spec.name for spec in bundle.signature.inputs] == ["age", "income", "city"]
    assert [spec.dtype for spec in bundle.signature.inputs] == ["int64", "float64", "string"]
    np.testing.assert_array_equal(answer(bundle, frame[["city", "income", "age"]]), model.predict(frame))
    unseen = frame[:3].assign(city="Rom")
    np.testing.assert_array_equal(answer(bundle, unseen), model.predict(unseen))


def test_a_table_of_numbers_is_one_input_with_its_columns_named() -> None:
    frame = load_iris(as_frame=True)
    model = LogisticRegression(max_iter=500).fit(frame.data, frame.target)
    bundle = bundle_of(model, frame.data[::10])
    assert bundle.signature.inputs[0].columns == tuple(frame.data.columns)
    mixed = frame.data[list(reversed(frame.data.columns))]
    np.testing.assert_array_equal(answer(bundle, mixed), model.predict(frame.data))


def test_nan_is_refused_where_the_source_refuses_it() -> None:
    x, y = IRIS
    bundle = bundle_of(LogisticRegression(max_iter=500).fit(x, y), x[::10])
    with pytest.raises(SignatureError, match="NaN"):
        bundle.signature.check(np.full((1, 4), np.nan))


def test_nan_is_a_missing_value_where_the_source_takes_it() -> None:
    x, y = IRIS
    holes = np.where(np.random.default_rng(0).random(x.shape) < 0.1, np.nan, x)
    model = HistGradientBoostingClassifier(max_iter=10).fit(holes, y)
    np.testing.assert_array_equal(answer(bundle_of(model, holes[:50]), holes), model.predict(holes))


@pytest.mark.parametrize("share", [0.01, 0.2, 0.6])
def test_a_forest_that_learnt_from_missing_values_sends_them_its_way(share: float) -> None:
    # skl2onnx sends them the other way (onnx/sklearn-onnx#1253), and never returns from a threshold that tells missing
    # values from all others. A column without any in training has such values afterwards.
    x, y = CANCER
    holes = np.where(np.random.default_rng(0).random(x.shape) < share, np.nan, x)
    holes[:, 0] = x[:, 0]
    for kind in (RandomForestClassifier, ExtraTreesRegressor):
        model = kind(20, random_state=0).fit(holes, y)
        bundle = bundle_of(model, holes[:64])
        later = np.where(np.random.default_rng(1).random(x.shape) < share, np.nan, x)
        np.testing.assert_allclose(answer(bundle, later), model.predict(later), rtol=1e-6)


def test_a_skops_file_is_a_source(tmp_path: Path) -> None:
    import skops.io

    x, y = IRIS
    model = LogisticRegression(max_iter=500).fit(x, y)
    skops.io.dump(model, tmp_path / "model.skops")
    np.testing.assert_array_equal(answer(bundle_of(tmp_path / "model.skops", x[::10]), x), model.predict(x))


def test_a_skops_file_with_types_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    import skops.io

    model = make_pipeline(FunctionTransformer(os.path.join), LogisticRegression())
    skops.io.dump(model, tmp_path / "odd.skops")
    with pytest.raises(UnsupportedSourceError, match="does not know as safe"):
        convert(tmp_path / "odd.skops", IRIS[0][:4])


class TestRefusals:
    def test_an_estimator_without_an_answer_for_new_rows_says_so(self) -> None:
        with pytest.raises(ConversionError, match="neither predict nor transform"):
            convert(DBSCAN().fit(IRIS[0]), IRIS[0][:8])

    def test_a_missing_example_is_asked_for_with_the_line_to_write(self) -> None:
        with pytest.raises(ExampleRequiredError, match=r"example=X\[:8\]"):
            convert(LogisticRegression(max_iter=500).fit(*IRIS))

    def test_an_untrained_estimator_is_refused(self) -> None:
        with pytest.raises(ConversionError):
            convert(LogisticRegression(), IRIS[0][:8])

    @pytest.mark.parametrize("example", [[], [[1.0, 2.0], [3.0]], np.zeros((0, 4)), np.zeros((2, 3, 4)), np.zeros(4)])
    def test_an_example_that_is_no_table_is_refused(self, example: Any) -> None:
        with pytest.raises(SignatureError):
            convert(LogisticRegression(max_iter=500).fit(*IRIS), example)

    def test_a_wrong_number_of_features_is_refused(self) -> None:
        with pytest.raises(ConversionError):
            convert(LogisticRegression(max_iter=500).fit(*IRIS), np.zeros((2, 3)))

    def test_a_tolerance_admits_what_it_says(self) -> None:
        x, y = DIABETES
        model = Ridge().fit(x, y)
        with pytest.raises(UnfaithfulError, match="tolerance="):
            convert(model, x[:32], tolerance=1e-18)
        assert bundle_of(model, x[:32], tolerance=0.1).manifest.reports[0]["tolerance"]["absolute"] == 0.1
