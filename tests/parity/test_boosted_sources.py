"""XGBoost, LightGBM and CatBoost: their scikit-learn classes, their own, and both within scikit-learn's pipelines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.ensemble import StackingClassifier, VotingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from modelserve.bundle import Bundle
from modelserve.convert import convert
from modelserve.errors import ConversionError, SignatureError, UnsupportedSourceError
from modelserve.session import Session

IRIS, CANCER, DIGITS, DIABETES = (
    load(return_X_y=True) for load in (load_iris, load_breast_cancer, load_digits, load_diabetes)
)
COUNTS = (DIABETES[0], np.round(DIABETES[1] / 25))
GROUPS = np.repeat(10, 44)

# float32 sums of some dozen trees' leaves, in another order; predictions here reach some hundreds.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def bundle_of(source: Any, example: Any, **settings: Any) -> Bundle:
    made = convert(source, example, **settings)
    assert isinstance(made, Bundle)
    return made


def answers(bundle: Bundle, rows: Any) -> dict[str, Any]:
    names = [spec.name for spec in bundle.signature.outputs]
    return dict(Session(bundle).run(bundle.signature.check(rows).tensors, names))


def assert_alike(bundle: Bundle, source: Any, rows: Any) -> None:
    """All that the source can answer about rows, most of which the conversion has not seen."""
    found = answers(bundle, rows)
    first = bundle.signature.primary
    wanted = np.asarray(source.predict(rows))
    assert found[first].dtype == (object if wanted.dtype.kind in "OU" else wanted.dtype)
    assert found[first].shape == wanted.shape
    if first == "label":
        np.testing.assert_array_equal(found[first], wanted)
        np.testing.assert_allclose(found["probabilities"], source.predict_proba(rows), **CLOSE)
    else:
        np.testing.assert_allclose(found[first], wanted, **CLOSE)


def with_holes(x: Any) -> Any:
    return np.where(np.random.default_rng(0).random(x.shape) < 0.15, np.nan, x)


def quiet_catboost(kind: Any, **settings: Any) -> Any:
    return kind(iterations=20, depth=4, verbose=0, allow_writing_files=False, thread_count=1, **settings)


def lgbm(kind: Any, **settings: Any) -> Any:
    return kind(n_estimators=20, verbose=-1, n_jobs=1, **settings)


def xgb(kind: Any, **settings: Any) -> Any:
    return kind(n_estimators=20, n_jobs=1, **settings)


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


def people(rows: int) -> tuple[pd.DataFrame, Any]:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 80, rows),
            "income": np.where(random.random(rows) < 0.1, np.nan, random.normal(3e4, 1e4, rows)),
            "city": random.choice(["Bonn", "Köln", "Ulm"], rows),
        }
    )
    return frame, ((frame["age"] > 40) ^ (frame["city"] == "Ulm")).astype(int).to_numpy()


def categories(rows: int) -> tuple[pd.DataFrame, Any]:
    """Columns of categories in text and in numbers, beside a plain one."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "city": pd.Categorical(random.choice([f"city {number}" for number in range(12)], rows)),
            "x": random.normal(size=rows),
            "zone": pd.Categorical(random.choice([10, 20, 30, 40], rows)),
        }
    )
    target = (frame["city"].cat.codes % 3 == 1) ^ (frame["x"] > 0.3) ^ (frame["zone"].cat.codes == 2)
    return frame, target.astype(int).to_numpy()


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
