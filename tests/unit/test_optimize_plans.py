"""What a user can ask for, and what is refused before any work."""

import numpy as np
import pytest

from modelserve.errors import PlanError
from modelserve.optimize import Auto, Chain, Fuse, Prune, Quantize, optimize
from modelserve.testing import models


def test_plans_are_joined_in_the_order_in_which_they_are_done():
    plan = Fuse() >> Prune(0.5) >> Quantize("int8")
    assert isinstance(plan, Chain)
    assert [type(step) for step in plan] == [Fuse, Prune, Quantize]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Quantize("int7"),
        lambda: Quantize("int8", ranges="guess"),
        lambda: Quantize("float16", keep_wide=2),
        lambda: Prune(0),
        lambda: Prune(1.0),
        lambda: Prune(float("nan")),
        lambda: Prune(),
        lambda: Prune(0.5, structured=False, pattern="2:4"),
        lambda: Prune(structured=False, pattern="4:2"),
        lambda: Quantize("int8") >> Prune(0.5),
        lambda: Quantize("int8") >> Quantize("float16"),
        lambda: Fuse() >> Fuse(),
        lambda: Fuse() >> "int8",
        lambda: Auto(max_drop=-0.01),
        lambda: Auto(max_drop=float("nan")),
        lambda: Auto(max_drop=0.01, goal="beauty"),
        lambda: Auto(max_drop=0.01, budget_s=0),
        lambda: Auto(max_drop=0.01) >> Quantize("int8"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_when_it_is_made(make):
    with pytest.raises(PlanError):
        make()


ROWS = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("data", "metric", "said"),
    [
        (None, None, "missing"),
        (np.empty((0, 8), np.float32), None, "empty"),
        ((ROWS, np.zeros(3, np.int64)), None, "200 rows of inputs and 3 labels"),
        (ROWS[:, :5], None, "does not fit"),
        ((ROWS, np.full(200, 7)), "accuracy", "cannot be computed|cannot answer|is nan"),
        ((ROWS, np.full(200, np.nan)), "rmse", "NaN"),
        ((ROWS, np.array(["a"] * 200)), "accuracy", "Encode them alike"),
        (ROWS, "accuracy", "needs labels"),
        ((ROWS, np.zeros(200, np.int64)), "beauty", "no metric"),
        ((ROWS, np.zeros(200, np.int64)), lambda truth, answers: float("nan"), "is nan"),
        ((ROWS, np.zeros(200, np.int64)), "roc_auc", "is nan"),
        ((ROWS, np.zeros(200, np.int64)), lambda truth, answers: 1 / 0, "ZeroDivisionError"),
        ((ROWS, np.zeros(200, np.int64)), lambda truth, answers: None, "failed on 200 rows"),
        ((ROWS, np.zeros(200, np.int64), 1), None, "tuple of 3"),
    ],
)
def test_data_that_makes_no_sense_is_refused_before_any_work(data, metric, said):
    bundle = models.mlp()
    before = bundle.manifest.to_json()
    told = []
    if metric == "accuracy" and isinstance(data, tuple) and data[1].dtype.kind == "i":
        bundle = models.linear(8, 3)  # its number of scores tells which labels there are
    with pytest.raises(PlanError, match=said):
        optimize(bundle, Auto(max_drop=0.01, metric=metric, data=data), on_progress=told.append)
    assert not told, "nothing was tried"
    assert models.mlp().manifest.to_json() == before


def test_a_plan_must_be_a_plan():
    with pytest.raises(PlanError, match="made of"):
        optimize(models.mlp(), 8)  # type: ignore[arg-type]  # what a user may well try
