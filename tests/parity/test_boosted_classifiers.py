"""Classifiers of XGBoost, LightGBM and CatBoost, alone and within scikit-learn's pipelines."""

from __future__ import annotations

from typing import Any

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost
from asking import answers, bundle_of
from boosted_models import (
    CANCER,
    IRIS,
    assert_alike,
    lgbm,
    people,
    quiet_catboost,
    with_holes,
    xgb,
)
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import StackingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from modelserve.convert import convert
from modelserve.errors import ConversionError, SignatureError

pytestmark = pytest.mark.long


@pytest.fixture(params=["xgboost", "lightgbm", "catboost"])
def model(request: pytest.FixtureRequest) -> Any:
    """A new classifier of each framework."""
    if request.param == "xgboost":
        return xgb(xgboost.XGBClassifier)
    return lgbm(lightgbm.LGBMClassifier) if request.param == "lightgbm" else quiet_catboost(catboost.CatBoostClassifier)


class TestClassifiers:
    def test_missing_values_go_where_the_source_sends_them(self, model: Any) -> None:
        x, y = with_holes(CANCER[0]), CANCER[1]
        model.fit(x, y)
        bundle = bundle_of(model, x[:64])
        assert bundle.signature.inputs[0].allows_nan
        assert_alike(bundle, model, x)

    def test_columns_are_taken_by_name(self, model: Any) -> None:
        frame, y = load_iris(as_frame=True, return_X_y=True)
        model.fit(frame, y)
        bundle = bundle_of(model, frame[::3])
        assert bundle.signature.inputs[0].columns == tuple(frame.columns)
        mixed = frame[list(reversed(frame.columns))]
        np.testing.assert_array_equal(answers(bundle, mixed)["label"], model.predict(frame))

    def test_columns_in_another_order_are_refused_and_not_taken_by_place(self, model: Any) -> None:
        frame, y = load_iris(as_frame=True, return_X_y=True)
        model.fit(frame, y)
        with pytest.raises(SignatureError, match="trained with the columns"):
            convert(model, frame[list(reversed(frame.columns))][:8])

    def test_it_stops_where_training_stopped_early(self, model: Any) -> None:
        x, y = CANCER
        more: dict[str, Any] = {"eval_set": [(x[400:], y[400:])]}
        if isinstance(model, xgboost.XGBClassifier):
            model = xgboost.XGBClassifier(n_estimators=200, early_stopping_rounds=3, n_jobs=1)
            more["verbose"] = False
        elif isinstance(model, lightgbm.LGBMClassifier):
            model = lightgbm.LGBMClassifier(n_estimators=200, verbose=-1, n_jobs=1)
            more = {"eval_X": x[400:], "eval_y": y[400:], "callbacks": [lightgbm.early_stopping(3, verbose=False)]}
        else:
            model = catboost.CatBoostClassifier(200, verbose=0, allow_writing_files=False, thread_count=1)
            more["early_stopping_rounds"] = 3
        model.fit(x[:400], y[:400], **more)
        assert_alike(bundle_of(model, x[:64]), model, x)

    def test_it_stands_at_the_end_of_a_pipeline(self, model: Any, record_source: Any) -> None:
        # The scaler computes in float64; its float32 twin would move values across the trees' thresholds.
        pipeline = make_pipeline(StandardScaler(), model).fit(*CANCER)
        bundle = bundle_of(pipeline, CANCER[0][:64])
        assert_alike(bundle, pipeline, CANCER[0])
        record_source("scikit-learn", f"Pipeline: StandardScaler, {type(model).__name__}", bundle)

    def test_it_stands_within_other_estimators(self, model: Any) -> None:
        for outer in (
            CalibratedClassifierCV(model, cv=2),
            StackingClassifier([("a", model)], LogisticRegression(), cv=2),
        ):
            outer.fit(*CANCER)
            assert_alike(bundle_of(outer, CANCER[0][:64]), outer, CANCER[0])

    def test_it_follows_a_column_transformer_over_a_table(self, model: Any) -> None:
        frame, target = people(300)
        encode = ColumnTransformer(
            [
                ("numbers", SimpleImputer(), ["age", "income"]),
                ("words", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
            ]
        )
        pipeline = make_pipeline(encode, model).fit(frame, target)
        bundle = bundle_of(pipeline, frame[:64])
        mixed = frame[list(reversed(frame.columns))].assign(city=["Rom", *frame["city"][1:]])
        assert_alike(bundle, pipeline, mixed[frame.columns])
        np.testing.assert_array_equal(answers(bundle, mixed)["label"], pipeline.predict(mixed))

    def test_an_untrained_one_is_refused(self, model: Any) -> None:
        with pytest.raises(ConversionError, match="trained"):
            convert(type(model)(), IRIS[0][:8])
