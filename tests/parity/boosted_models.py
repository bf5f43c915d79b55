"""Boosted models of three frameworks that train quickly, data for them, and what "alike" means of their bundles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from asking import answers
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris

from modelserve.bundle import Bundle

IRIS, CANCER, DIGITS, DIABETES = (
    load(return_X_y=True) for load in (load_iris, load_breast_cancer, load_digits, load_diabetes)
)


COUNTS = (DIABETES[0], np.round(DIABETES[1] / 25))


# float32 sums of some dozen trees' leaves, in another order; predictions here reach some hundreds.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


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
