"""XGBoost, LightGBM and CatBoost by their own interfaces, and the categories that they know themselves."""

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
    CLOSE,
    COUNTS,
    DIABETES,
    DIGITS,
    IRIS,
    assert_alike,
    categories,
    lgbm,
    quiet_catboost,
    xgb,
)
from sklearn.datasets import load_diabetes

GROUPS = np.repeat(10, 44)


class TestCategories:
    @pytest.mark.parametrize(
        "model",
        [
            lgbm(lightgbm.LGBMClassifier, min_child_samples=2, max_cat_to_onehot=1),
            lgbm(lightgbm.LGBMClassifier, min_child_samples=2, max_cat_to_onehot=20),
            xgb(xgboost.XGBClassifier, enable_categorical=True, max_cat_to_onehot=1),
            xgb(xgboost.XGBClassifier, enable_categorical=True, max_cat_to_onehot=20),
        ],
        ids=["lightgbm sets", "lightgbm single", "xgboost sets", "xgboost single"],
    )
    def test_categories_of_a_table_are_given_as_they_are(self, model: Any, record_source: Any) -> None:
        frame, y = categories(500)
        model.fit(frame, y)
        bundle = bundle_of(model, frame[:100])
        assert [spec.dtype for spec in bundle.signature.inputs] == ["string", "float64", "int64"]
        assert_alike(bundle, model, frame)
        record_source(
            "XGBoost" if isinstance(model, xgboost.XGBModel) else "LightGBM",
            f"{type(model).__name__}, categories",
            bundle,
        )

    def test_categories_numbered_in_an_array(self) -> None:
        random = np.random.default_rng(0)
        x = np.c_[random.integers(0, 30, 600), random.normal(size=(600, 2))]
        y = (np.isin(x[:, 0], [1, 4, 7, 19, 28]) ^ (x[:, 1] > 0)).astype(int)
        model = lgbm(lightgbm.LGBMClassifier, min_child_samples=2).fit(x, y, categorical_feature=[0])
        assert_alike(bundle_of(model, x[:100]), model, x)


class TestNativeModels:
    @pytest.mark.parametrize(
        ("settings", "data"),
        [
            ({"objective": "multi:softprob", "num_class": 10}, DIGITS),
            ({"objective": "binary:logistic"}, CANCER),
            ({"objective": "reg:squarederror", "base_score": 100.0}, DIABETES),
            ({"objective": "count:poisson"}, COUNTS),
            ({"objective": "binary:logitraw"}, CANCER),
        ],
        ids=lambda value: value["objective"] if isinstance(value, dict) else "",
    )
    def test_an_xgboost_booster_answers_what_its_predict_does(
        self, settings: Any, data: Any, record_source: Any
    ) -> None:
        x, y = data
        booster = xgboost.train({**settings, "nthread": 1}, xgboost.DMatrix(x, y), 15)
        bundle = bundle_of(booster, x[:64])
        np.testing.assert_allclose(answers(bundle, x)["value"], booster.predict(xgboost.DMatrix(x)), **CLOSE)
        record_source("XGBoost", f"Booster, {settings['objective']}", bundle)

    def test_an_xgboost_booster_of_a_table_takes_arrays_too(self) -> None:
        frame, y = load_diabetes(as_frame=True, return_X_y=True)
        booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(frame, y), 10)
        wanted = booster.predict(xgboost.DMatrix(frame))
        for example in (frame[:64], frame[:64].to_numpy()):
            np.testing.assert_allclose(answers(bundle_of(booster, example), frame.to_numpy())["value"], wanted, **CLOSE)

    @pytest.mark.parametrize(
        ("settings", "data"),
        [
            ({"objective": "binary"}, CANCER),
            ({"objective": "multiclass", "num_class": 3}, IRIS),
            ({"objective": "regression"}, DIABETES),
            ({"objective": "cross_entropy"}, CANCER),
        ],
        ids=lambda value: value["objective"] if isinstance(value, dict) else "",
    )
    def test_a_lightgbm_booster_answers_what_its_predict_does(
        self, settings: Any, data: Any, record_source: Any
    ) -> None:
        x, y = data
        booster = lightgbm.train({**settings, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, y), 15)
        bundle = bundle_of(booster, x[:64])
        np.testing.assert_allclose(answers(bundle, x)["value"], booster.predict(x), **CLOSE)
        record_source("LightGBM", f"Booster, {settings['objective']}", bundle)

    def test_catboost_trained_on_a_pool(self, record_source: Any) -> None:
        x, y = DIABETES
        settings = {"iterations": 20, "loss_function": "RMSE", "verbose": 0, "allow_writing_files": False}
        model = catboost.CatBoost(settings).fit(catboost.Pool(x, y))
        bundle = bundle_of(model, x[:64])
        np.testing.assert_allclose(answers(bundle, x)["value"], model.predict(x), **CLOSE)
        record_source("CatBoost", "CatBoost, trained on a Pool", bundle)

    def test_rankers_give_their_scores(self) -> None:
        x, y = DIABETES[0][:440], np.digitize(DIABETES[1][:440], [100, 200])
        rankers = [xgb(xgboost.XGBRanker).fit(x, y, group=GROUPS), lgbm(lightgbm.LGBMRanker).fit(x, y, group=GROUPS)]
        rankers.append(quiet_catboost(catboost.CatBoostRanker).fit(x, y, group_id=np.repeat(np.arange(44), 10)))
        for ranker in rankers:
            assert_alike(bundle_of(ranker, x[:64]), ranker, x)
