"""scikit-learn's neighbours: those that are nearest, all within a radius, and what lies apart from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from asking import answers
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    LocalOutlierFactor,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelserve.bundle import Bundle
from modelserve.convert import convert
from modelserve.errors import ModelRunError, UnsupportedSourceError
from modelserve.session import Session

# Iris has one digit after the point, so that radii with two are met by no distance.
IRIS, CANCER, DIABETES = (load(return_X_y=True) for load in (load_iris, load_breast_cancer, load_diabetes))


def assert_alike(source: Any, rows: Any, *, seen: int = 64, atol: float = 1e-9) -> Bundle:
    """All outputs on rows of which the conversion saw the first ones only; the graph computes in float64."""
    bundle = convert(source, rows[:seen])
    found = answers(bundle, rows)
    first = bundle.signature.primary
    wanted = source.predict(rows)
    if first == "label":
        np.testing.assert_array_equal(found["label"], wanted)
    else:
        np.testing.assert_allclose(found["value"], wanted, rtol=1e-9, atol=atol)
    if "probabilities" in found:
        np.testing.assert_allclose(found["probabilities"], source.predict_proba(rows), atol=atol)
    if "decision_function" in found:
        np.testing.assert_allclose(found["decision_function"], source.decision_function(rows), atol=atol)
    return bundle


class TestNearest:
    @pytest.mark.parametrize("weights", ["uniform", "distance"])
    @pytest.mark.parametrize("kind", [KNeighborsClassifier, KNeighborsRegressor])
    def test_answers_are_the_sources_where_no_rows_are_equally_near(
        self, kind: Any, weights: str, record_source: Any
    ) -> None:
        x, y = CANCER
        # scikit-learn itself does not meet a training row exactly where it searches by brute force.
        bundle = assert_alike(kind(5, weights=weights).fit(x[:400], y[:400]), x, atol=1e-5)
        record_source("scikit-learn", f"{kind.__name__}, weights {weights}, no ties", bundle)

    def test_rows_that_are_equally_near_and_say_different_things_are_refused(self) -> None:
        # Of two equal rows with different labels one is the third neighbour, and which one the search tree decides.
        x = np.array([[0.0], [1.0], [1.0], [5.0], [6.0], [7.0]])
        model = KNeighborsClassifier(2).fit(x, [0, 0, 1, 1, 1, 1])
        with pytest.raises(UnsupportedSourceError, match="1 of 6 are answered by which of them"):
            convert(model, x)

    def test_rows_that_are_equally_near_and_say_the_same_are_taken(self) -> None:
        x = np.array([[0.0], [1.0], [1.0], [5.0], [6.5], [7.2]])
        assert_alike(KNeighborsClassifier(2).fit(x, [0, 1, 1, 0, 0, 0]), x)

    def test_a_tie_that_is_not_cut_is_none(self) -> None:
        # Both equal rows are among the three nearest, whichever is met first.
        x = np.array([[0.0], [1.0], [1.0], [20.0], [20.5], [21.2]])
        model = KNeighborsRegressor(3).fit(x, [0.0, 1.0, 2.0, 5.0, 7.0, 9.0])
        assert_alike(model, x)


class TestWithinARadius:
    @pytest.mark.parametrize("weights", ["uniform", "distance"])
    @pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
    def test_classes_and_values_are_the_sources(self, metric: str, weights: str, record_source: Any) -> None:
        settings = {"radius": 1.27, "metric": metric, "weights": weights}
        classifier = RadiusNeighborsClassifier(**settings).fit(*IRIS)
        bundle = assert_alike(classifier, IRIS[0], seen=150)
        record_source("scikit-learn", f"RadiusNeighborsClassifier, {metric}, weights {weights}", bundle)
        bundle = assert_alike(RadiusNeighborsRegressor(**settings).fit(IRIS[0], IRIS[1] / 2), IRIS[0], seen=150)
        record_source("scikit-learn", f"RadiusNeighborsRegressor, {metric}, weights {weights}", bundle)

    def test_text_labels_and_several_targets(self) -> None:
        names = load_iris().target_names[IRIS[1]]
        model = RadiusNeighborsClassifier(0.95).fit(IRIS[0], names)
        assert answers(convert(model, IRIS[0]), IRIS[0])["label"].tolist() == model.predict(IRIS[0]).tolist()
        assert_alike(RadiusNeighborsRegressor(0.95).fit(IRIS[0], np.c_[IRIS[1], IRIS[0][:, 0]]), IRIS[0])

    def test_a_row_without_neighbours_is_refused_as_the_source_refuses_it(self) -> None:
        model = RadiusNeighborsClassifier(0.95).fit(*IRIS)
        with pytest.raises(ValueError, match="No neighbors"):
            model.predict([[100.0, 0, 0, 0]])
        bundle = convert(model, IRIS[0])
        for name in ("label", "probabilities"):
            with pytest.raises(ModelRunError):
                Session(bundle).run({"X": np.array([[100.0, 0, 0, 0]])}, [name])

    def test_it_is_refused_within_others_that_ask_for_shares_alone_too(self) -> None:
        parts = [("near", RadiusNeighborsClassifier(0.95)), ("line", LogisticRegression(max_iter=500))]
        bundle = convert(VotingClassifier(parts, voting="soft").fit(*IRIS), IRIS[0])
        with pytest.raises(ModelRunError):
            Session(bundle).run({"X": np.array([[100.0, 0, 0, 0]])})

    @pytest.mark.filterwarnings("ignore:Outlier label")  # scikit-learn's own, on every such row
    @pytest.mark.parametrize("label", ["most_frequent", 2, 7])
    def test_a_row_without_neighbours_gets_the_label_that_was_set_for_it(self, label: Any) -> None:
        # Brute force takes another way within scikit-learn, which warns and errs on such labels.
        model = RadiusNeighborsClassifier(0.95, outlier_label=label, algorithm="kd_tree").fit(*IRIS)
        rows = np.concatenate([IRIS[0], [[100.0, 0, 0, 0], [-50.0, 3, 2, 1]]])
        assert_alike(model, rows, seen=152)

    @pytest.mark.filterwarnings("ignore:One or more samples have no neighbors")  # the source's own
    def test_a_value_without_neighbours_is_not_a_number_as_the_sources_is(self) -> None:
        model = RadiusNeighborsRegressor(0.95).fit(IRIS[0], IRIS[1] / 2)
        rows = np.concatenate([IRIS[0], [[100.0, 0, 0, 0]]])
        assert np.isnan(answers(convert(model, rows), rows)["value"][-1])
        assert_alike(model, rows, seen=151)

    @pytest.mark.filterwarnings("ignore:One or more samples have no neighbors")
    @pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # scikit-learn's own
    def test_among_whole_numbers_it_is_what_the_source_makes_of_it(self) -> None:
        rows = np.concatenate([IRIS[0], [[100.0, 0, 0, 0]]])
        assert_alike(RadiusNeighborsRegressor(0.95).fit(*IRIS), rows, seen=150)

    def test_behind_a_scaler(self) -> None:
        x, y = DIABETES
        model = make_pipeline(StandardScaler(), RadiusNeighborsRegressor(4.0)).fit(x, y)
        assert_alike(model, x)

    def test_too_many_training_rows_are_refused_with_their_number(self) -> None:
        x = np.random.default_rng(0).normal(size=(20_001, 100))
        with pytest.raises(UnsupportedSourceError, match="20001 training rows of 100 features"):
            convert(RadiusNeighborsRegressor(20.0).fit(x, x[:, 0]), x[:4])


class TestApart:
    def test_a_local_outlier_factor_decides_and_scores_as_the_source(self, record_source: Any) -> None:
        x = CANCER[0][:, :8]
        bundle = assert_alike(LocalOutlierFactor(novelty=True).fit(x[:300]), x)
        record_source("scikit-learn", "LocalOutlierFactor, no ties", bundle)

    def test_one_whose_rows_are_equally_near_is_refused(self) -> None:
        # Of iris' rows, which have one digit after the point, many are.
        with pytest.raises(UnsupportedSourceError, match="LocalOutlierFactor has training rows that are equally near"):
            convert(LocalOutlierFactor(novelty=True).fit(IRIS[0]), IRIS[0][::3])
