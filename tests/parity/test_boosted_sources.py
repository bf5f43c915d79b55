"""XGBoost, LightGBM and CatBoost by their scikit-learn classes: every objective, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost
from asking import bundle_of
from boosted_models import (
    CANCER,
    COUNTS,
    DIABETES,
    DIGITS,
    IRIS,
    assert_alike,
    lgbm,
    people,
    quiet_catboost,
    xgb,
)
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import VotingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from modelserve.convert import convert
from modelserve.errors import UnsupportedSourceError

MODELS: list[tuple[str, str, Any, tuple[Any, Any]]] = [
    ("XGBoost", "XGBClassifier, 2 classes", xgb(xgboost.XGBClassifier), CANCER),
    ("XGBoost", "XGBClassifier, 10 classes", xgb(xgboost.XGBClassifier), DIGITS),
    ("XGBoost", "XGBClassifier, dart", xgb(xgboost.XGBClassifier, booster="dart", rate_drop=0.3), CANCER),
    ("XGBoost", "XGBClassifier, binary:hinge", xgb(xgboost.XGBClassifier, objective="binary:hinge"), CANCER),
    ("XGBoost", "XGBRFClassifier", xgb(xgboost.XGBRFClassifier), IRIS),
    ("XGBoost", "XGBRFRegressor", xgb(xgboost.XGBRFRegressor), DIABETES),
    *(
        ("XGBoost", f"XGBRegressor, {name}", xgb(xgboost.XGBRegressor, objective=name, **more), COUNTS)
        for name, more in {
            "reg:squarederror": {},
            "reg:absoluteerror": {},
            "reg:pseudohubererror": {},
            "reg:quantileerror": {"quantile_alpha": 0.7},
            "reg:gamma": {},
            "reg:tweedie": {},
            "count:poisson": {},
        }.items()
    ),
    (
        "XGBoost",
        "XGBRegressor, two targets",
        xgb(xgboost.XGBRegressor),
        (DIABETES[0], np.c_[DIABETES[1], DIABETES[1] ** 2]),
    ),
    ("LightGBM", "LGBMClassifier, 2 classes", lgbm(lightgbm.LGBMClassifier), CANCER),
    ("LightGBM", "LGBMClassifier, 10 classes", lgbm(lightgbm.LGBMClassifier), DIGITS),
    ("LightGBM", "LGBMClassifier, one against all", lgbm(lightgbm.LGBMClassifier, objective="multiclassova"), IRIS),
    ("LightGBM", "LGBMClassifier, slope", lgbm(lightgbm.LGBMClassifier, sigmoid=2.0), CANCER),
    (
        "LightGBM",
        "LGBMClassifier, random forest",
        lgbm(lightgbm.LGBMClassifier, boosting_type="rf", subsample=0.7, subsample_freq=1),
        CANCER,
    ),
    ("LightGBM", "LGBMClassifier, dart", lgbm(lightgbm.LGBMClassifier, boosting_type="dart"), CANCER),
    *(
        ("LightGBM", f"LGBMRegressor, {name}", lgbm(lightgbm.LGBMRegressor, objective=name), COUNTS)
        for name in ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "poisson", "tweedie")
    ),
    ("LightGBM", "LGBMRegressor, reg_sqrt", lgbm(lightgbm.LGBMRegressor, reg_sqrt=True), COUNTS),
    ("CatBoost", "CatBoostClassifier, 2 classes", quiet_catboost(catboost.CatBoostClassifier), CANCER),
    ("CatBoost", "CatBoostClassifier, 10 classes", quiet_catboost(catboost.CatBoostClassifier), DIGITS),
    (
        "CatBoost",
        "CatBoostClassifier, one against all",
        quiet_catboost(catboost.CatBoostClassifier, loss_function="MultiClassOneVsAll"),
        IRIS,
    ),
    (
        "CatBoost",
        "CatBoostClassifier, leaf by leaf",
        quiet_catboost(catboost.CatBoostClassifier, grow_policy="Lossguide"),
        CANCER,
    ),
    ("CatBoost", "CatBoostRegressor", quiet_catboost(catboost.CatBoostRegressor), DIABETES),
    (
        "CatBoost",
        "CatBoostRegressor, leaf by leaf",
        quiet_catboost(catboost.CatBoostRegressor, grow_policy="Depthwise"),
        DIABETES,
    ),
    *(
        (
            "CatBoost",
            f"CatBoostRegressor, {loss}",
            quiet_catboost(catboost.CatBoostRegressor, loss_function=loss),
            COUNTS,
        )
        for loss in ("MAE", "Quantile:alpha=0.7", "Poisson", "Tweedie:variance_power=1.5")
    ),
]


@pytest.mark.parametrize(("framework", "name", "model", "data"), MODELS, ids=[entry[1] for entry in MODELS])
def test_answers_are_the_sources(framework: str, name: str, model: Any, data: Any, record_source: Any) -> None:
    x, y = data
    model.fit(x, y)
    bundle = bundle_of(model, x[:64])
    assert_alike(bundle, model, x)
    record_source(framework, name, bundle)


def test_text_labels_come_back_as_text() -> None:
    x, y = IRIS
    names = load_iris().target_names[y]
    assert_alike(
        bundle_of(lgbm(lightgbm.LGBMClassifier).fit(x, names), x[::3]), lgbm(lightgbm.LGBMClassifier).fit(x, names), x
    )


def test_thresholds_between_neighbouring_float32_numbers_are_kept_by_lightgbm() -> None:
    # Seconds since 1970: float32 tells apart what is two minutes apart, and no nearer.
    random = np.random.default_rng(0)
    x = np.round(1.7e9 + random.uniform(0, 3600, (800, 2)))
    y = (x[:, 0] - 1.7e9 > 1800).astype(int)
    model = lgbm(lightgbm.LGBMClassifier).fit(x, y)
    bundle = bundle_of(model, x[:64])
    assert bundle.manifest.lineage[0].settings["precision"] == "float64"
    assert_alike(bundle, model, x)


def test_regressors_vote_with_a_boosted_one_among_them() -> None:
    x, y = DIABETES
    model = VotingRegressor([("a", lgbm(lightgbm.LGBMRegressor)), ("b", Ridge())]).fit(x, y)
    assert_alike(bundle_of(model, x[:64]), model, x)


def test_the_page_about_tables_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "tabular-models.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path))
    exec(compile(block, "tabular-models.md", "exec"), {})


REFUSED: list[tuple[str, str, Callable[[], tuple[Any, Any]], str]] = [
    (
        "XGBoost",
        "gblinear",
        lambda: (xgb(xgboost.XGBClassifier, booster="gblinear").fit(*CANCER), CANCER[0][:8]),
        "linear model",
    ),
    (
        "XGBoost",
        "leaves of several values",
        lambda: (
            xgb(xgboost.XGBRegressor, multi_strategy="multi_output_tree", tree_method="hist").fit(
                DIABETES[0], np.c_[DIABETES[1], DIABETES[1]]
            ),
            DIABETES[0][:8],
        ),
        "one_output_per_tree",
    ),
    (
        "XGBoost",
        "another missing value than NaN",
        lambda: (xgb(xgboost.XGBClassifier, missing=0.0).fit(*CANCER), CANCER[0][:8]),
        "only NaN",
    ),
    (
        "LightGBM",
        "linear_tree",
        lambda: (lgbm(lightgbm.LGBMRegressor, linear_tree=True).fit(*DIABETES), DIABETES[0][:8]),
        "linear_tree=False",
    ),
    (
        "LightGBM",
        "zero_as_missing",
        lambda: (lgbm(lightgbm.LGBMClassifier, zero_as_missing=True).fit(*DIGITS), DIGITS[0][:8]),
        "zero_as_missing",
    ),
    (
        "CatBoost",
        "categories",
        lambda: (
            quiet_catboost(catboost.CatBoostClassifier, cat_features=["city"]).fit(*people(200)),
            people(200)[0][:8],
        ),
        "categorical features",
    ),
]


@pytest.mark.parametrize(("framework", "name", "make", "reason"), REFUSED, ids=[f"{e[0]} {e[1]}" for e in REFUSED])
def test_what_has_no_portable_form_is_refused_with_the_reason(
    framework: str, name: str, make: Any, reason: str, record_source: Any
) -> None:
    source, example = make()
    with pytest.raises(UnsupportedSourceError, match=reason) as caught:
        convert(source, example)
    record_source(framework, name, refused=str(caught.value))


def test_categories_encoded_before_catboost_are_carried_over() -> None:
    frame, y = people(300)
    frame = frame.assign(income=frame["income"].fillna(0))
    encode = ColumnTransformer([("words", OrdinalEncoder(), ["city"])], remainder="passthrough")
    model = make_pipeline(encode, quiet_catboost(catboost.CatBoostClassifier)).fit(frame, y)
    assert_alike(bundle_of(model, frame[:64]), model, frame)
