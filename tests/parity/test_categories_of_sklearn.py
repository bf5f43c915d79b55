"""HistGradientBoosting with categories, which skl2onnx does not know: numbered, named, missing, never seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from asking import answers, bundle_of
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits

from modelserve.bundle import Bundle


def table(rows: int = 400) -> tuple[pd.DataFrame, Any]:
    """Categories in text and in numbers, many and few, beside a plain column; what decides are sets of them."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "x": random.normal(size=rows),
            "city": pd.Categorical(random.choice([f"city {number}" for number in range(25)], rows)),
            "zone": pd.Categorical(random.choice([10, 20, 30, 40], rows)),
        }
    )
    odd = frame["city"].cat.codes % 3 == 1
    return frame, (odd ^ (frame["x"] > 0.3) ^ (frame["zone"] == 30)).astype(int).to_numpy()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Its threads wait for each other by spinning, which takes minutes on a machine that is busy with something else.
    with threadpool_limits(1):
        yield


def fitted(kind: Any, x: Any, y: Any, **settings: Any) -> Any:
    return kind(max_iter=10, min_samples_leaf=2, random_state=0, **settings).fit(x, y)


def assert_alike(bundle: Bundle, source: Any, rows: Any) -> None:
    found = answers(bundle, rows)
    if bundle.signature.primary == "label":
        np.testing.assert_array_equal(found["label"], source.predict(rows))
        np.testing.assert_allclose(found["probabilities"], source.predict_proba(rows), atol=1e-6)
    else:
        np.testing.assert_allclose(found["value"], source.predict(rows), atol=1e-6)


@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, HistGradientBoostingRegressor])
def test_categories_of_a_table_are_given_as_they_are(kind: Any, record_source: Any) -> None:
    frame, y = table()
    model = fitted(kind, frame, y, categorical_features="from_dtype")
    bundle = bundle_of(model, frame[:200])
    assert [spec.dtype for spec in bundle.signature.inputs] == ["float64", "string", "int64"]
    assert_alike(bundle, model, frame)
    record_source("scikit-learn", f"{kind.__name__}, categories", bundle)


def test_a_category_that_was_never_seen_and_one_that_is_missing_go_where_the_source_sends_them() -> None:
    frame, y = table()
    seen, kept = frame[frame["zone"] != 40], (frame["zone"] != 40).to_numpy()
    model = fitted(HistGradientBoostingClassifier, seen, y[kept], categorical_features="from_dtype")
    bundle = bundle_of(model, seen[:200])
    strange = seen[:100].assign(
        city=pd.Categorical(["nowhere"] * 50 + ["city 1"] * 50), zone=pd.Categorical([40] * 30 + [10] * 70)
    )
    assert_alike(bundle, model, strange)


def test_numbered_categories_of_an_array_with_missing_ones() -> None:
    random = np.random.default_rng(0)
    x = np.c_[random.normal(size=500), random.integers(0, 30, 500), random.normal(size=500)]
    y = (np.isin(x[:, 1], [1, 4, 7, 19, 28]) ^ (x[:, 0] > 0)).astype(int)
    x[::17, 1] = np.nan
    model = fitted(HistGradientBoostingClassifier, x, y, categorical_features=[1])
    bundle = bundle_of(model, x[:200])
    assert_alike(bundle, model, x)
    never_seen = x[:60].copy()
    never_seen[:, 1] = np.arange(60)
    assert_alike(bundle, model, never_seen)


def test_behind_another_step() -> None:
    random = np.random.default_rng(0)
    x = np.c_[random.integers(0, 12, 400), random.normal(size=400)].astype(float)
    y = (x[:, 0] % 3 == 1).astype(int)
    model = make_pipeline(FunctionTransformer(), HistGradientBoostingClassifier(max_iter=10, categorical_features=[0]))
    model.fit(x, y)
    assert_alike(bundle_of(model, x[:100]), model, x)
