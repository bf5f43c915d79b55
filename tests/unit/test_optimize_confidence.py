"""Intervals: they never degenerate, and they overrun as seldom as they say."""

import numpy as np
import pytest

from modelserve.optimize import confidence, metrics
from modelserve.tensors import Signature, TensorSpec


@pytest.mark.parametrize("rows", [30, 300, 3000])
def test_no_disagreement_leaves_about_three_rows_of_doubt(rows):
    limit = confidence.paired_counts(0, 0, rows).high
    assert 2.5 / rows < limit < 3.2 / rows


def test_the_exact_limit_is_the_textbooks():
    # Clopper and Pearson: 5 of 100, one-sided 95 %.
    assert confidence.exact_share_limit(5, 100) == pytest.approx(0.10225, abs=1e-4)


def test_at_tangos_limits_the_score_statistic_is_the_normal_quantile():
    # The share that is won, under each limit, found here by trying all instead of by the closed form.
    lost, won, rows = 12, 2, 50
    found = confidence.paired_counts(lost, won, rows, alpha=0.025)
    for limit, wanted in ((found.low, 1.95996), (found.high, -1.95996)):
        share = np.linspace(max(0, -limit) + 1e-9, (1 - limit) / 2 - 1e-9, 400_001)
        likelihood = (
            lost * np.log(share + limit) + won * np.log(share) + (rows - lost - won) * np.log1p(-2 * share - limit)
        )
        best = share[np.argmax(likelihood)]
        statistic = (lost - won - rows * limit) / np.sqrt(rows * (2 * best + limit * (1 - limit)))
        assert statistic == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(("lost", "won"), [(0.01, 0.0), (0.012, 0.002), (0.03, 0.02), (0.002, 0.0)])
def test_the_upper_limit_lies_below_the_truth_in_at_most_one_case_in_twenty(lost, won):
    random = np.random.default_rng(1)
    rows, cases = 1000, 2000
    draws = random.multinomial(rows, [lost, won, 1 - lost - won], size=cases)
    limits: dict[tuple[int, int], float] = {}
    missed = 0
    for a, b, _ in draws.tolist():
        if (a, b) not in limits:
            limits[a, b] = confidence.paired_counts(a, b, rows).high
        missed += limits[a, b] < lost - won
    assert missed / cases <= 0.05 + 2.6 * (0.05 * 0.95 / cases) ** 0.5


def test_rows_that_lose_nothing_leave_a_doubt_about_the_mean():
    assert confidence.mean(np.zeros(100), scale=1.0).high > 0.02
    assert confidence.mean(np.full(100, 0.01), scale=1.0).high > 0.01


def test_the_rows_needed_are_enough_and_one_less_is_not():
    needed = confidence.rows_needed(0.01)
    assert confidence.exact_share_limit(0, needed) <= 0.01 < confidence.exact_share_limit(0, needed - 1)


def test_students_quantile_is_the_tables():
    assert confidence.student_quantile(0.95, 10) == pytest.approx(1.8125, abs=1e-3)


CLASSIFIER = Signature((TensorSpec("x", "float32", ("batch", 2)),), (TensorSpec("scores", "float32", ("batch", 3)),))


@pytest.mark.parametrize("name", ["accuracy", "f1", "roc_auc"])
def test_scrambled_answers_drop_in_every_metric(name):
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 500)
    good = {"scores": np.eye(3, dtype=np.float32)[truth] + random.normal(0, 0.3, (500, 3)).astype(np.float32)}
    bad = {"scores": random.normal(size=(500, 3)).astype(np.float32)}
    metric = metrics.metric_for(name, CLASSIFIER, has_labels=True)
    drop = metric.drop(truth, good, bad)
    assert drop.low > 0.2
    assert drop.low < drop.drop < drop.high
    assert metric.drop(truth, good, good).drop == 0
    assert metric.drop(truth, good, good).high > 0


@pytest.mark.parametrize("name", ["rmse", "mae"])
def test_an_error_that_grows_is_a_drop(name):
    random = np.random.default_rng(0)
    truth = random.normal(size=400)
    signature = Signature((TensorSpec("x", "float32", ("batch", 2)),), (TensorSpec("y", "float32", ("batch",)),))
    metric = metrics.metric_for(name, signature, has_labels=True)
    near, far = {"y": truth + 0.1}, {"y": truth + 0.5}
    assert metric.drop(truth, near, far).drop == pytest.approx(0.4, abs=1e-9)


def test_the_area_under_the_curve_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 300)
    score = np.round(truth + random.normal(0, 1, 300), 1)
    signature = Signature((TensorSpec("x", "float32", ("batch", 2)),), (TensorSpec("p", "float64", ("batch",)),))
    metric = metrics.metric_for("roc_auc", signature, has_labels=True)
    assert metric.value(truth, {"p": score}) == pytest.approx(roc_auc_score(truth, score))
