"""What no route can convert runs as it is: the copy that workers get answers as the source does, and says why."""

from __future__ import annotations

import collections
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import modelserve as ms
from modelserve.bundle import LiveCallable
from modelserve.convert import convert, portable_or_live
from modelserve.errors import (
    ConversionError,
    ExampleRequiredError,
    InputError,
    NotSupportedError,
    SignatureError,
    UnfaithfulError,
    UnsupportedSourceError,
)
from modelserve.session import open_session
from modelserve.tensors import Signature, TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*")  # the frameworks' own are not ours to mend

X = np.random.default_rng(0).normal(size=(12, 4))
Y = (X[:, 0] > 0).astype(np.int64)


def live_of(source: Any, example: Any, **settings: Any) -> LiveCallable:
    made = portable_or_live(source, example, **settings)
    assert isinstance(made, LiveCallable)
    return made


def answers(live: LiveCallable, inputs: Any, *names: str) -> dict[str, Any]:
    return open_session(live).run(live.signature.check(inputs).tensors, names)


def shapes(live: LiveCallable) -> dict[str, str]:
    return {spec.name: str(spec) for spec in (*live.signature.inputs, *live.signature.outputs)}


def doubled(x: Any) -> Any:
    return x * 2


def own(function: Any) -> Any:
    """By value, as a function of the user's own program: the workers need not have this module."""
    function.__module__ = "__main__"
    return function


class Centroids(ClassifierMixin, BaseEstimator):
    """An estimator of the user's own, which no converter can know."""

    def fit(self, x: Any, y: Any) -> Any:
        self.classes_ = np.unique(y)
        self.centres_ = np.stack([x[y == label].mean(axis=0) for label in self.classes_])
        return self

    def decision_function(self, x: Any) -> Any:
        distances = ((np.asarray(x)[:, None] - self.centres_) ** 2).sum(axis=2)
        return distances[:, 0] - distances[:, 1]

    def predict(self, x: Any) -> Any:
        return self.classes_[(self.decision_function(x) > 0).astype(int)]


class TestHowItIsCalled:
    def test_a_function_of_one_array(self, record_source: Any) -> None:
        record_source("Python", "function, bound method, object with `__call__`", limits="local workers only")
        live = live_of(own(lambda x: x @ np.ones((4, 3))), X)
        assert shapes(live) == {"x": "float64[batch, 4]", "output": "float64[batch, 3]"}
        assert live.rows_independent
        np.testing.assert_array_equal(answers(live, X[:5])["output"], X[:5] @ np.ones((4, 3)))

    def test_a_tuple_is_positional_and_a_dict_goes_by_the_parameters_names(self) -> None:
        add = own(lambda left, right: {"sum": left + right})
        for example in ((X, X), {"right": X, "left": X}):
            live = live_of(add, example)
            assert {spec.name for spec in live.signature.inputs} == {"left", "right"}
            np.testing.assert_array_equal(answers(live, {"left": X, "right": X})["sum"], X + X)

    def test_a_dict_is_given_as_it_is_to_who_takes_one(self) -> None:
        live = live_of(own(lambda rows: rows["a"] - rows["b"]), {"a": X, "b": X})
        assert not answers(live, {"a": X, "b": X})["output"].any()

    def test_a_table_is_given_as_a_table(self) -> None:
        frame = pd.DataFrame({"n": np.arange(4), "word": ["a", "b", "c", "d"]})
        live = live_of(own(lambda rows: rows["word"].str.upper() + rows["n"].astype(str)), frame)
        assert shapes(live) == {"n": "int64[batch, 1]", "word": "string[batch, 1]", "output": "string[batch]"}
        assert answers(live, frame[["word", "n"]])["output"].tolist() == ["A0", "B1", "C2", "D3"]

    def test_text_a_bound_method_and_an_object_with_call(self) -> None:
        class Words:
            def count(self, texts: Any) -> Any:
                return np.array([len(text.split()) for text in texts])

            __call__ = count

        for source in (Words().count, Words()):
            live = live_of(source, ["one two", "three"])
            assert shapes(live) == {"texts": "string[batch]", "output": "int64[batch]"}
            assert answers(live, ["a b c"])["output"].tolist() == [3]

    def test_named_tuples_tuples_and_none(self) -> None:
        pair = collections.namedtuple("pair", "low high")
        live = live_of(own(lambda x: pair(x.min(axis=1), x.max(axis=1))), X)
        assert [spec.name for spec in live.signature.outputs] == ["low", "high"]
        live = live_of(own(lambda x: (x, None, x)), X)
        assert [spec.name for spec in live.signature.outputs] == ["output_0", "output_2"]

    @pytest.mark.long
    def test_a_function_of_torch_tensors_and_a_module(self) -> None:
        class Decompose(torch.nn.Module):
            def forward(self, square: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"values": torch.linalg.svd(square)[1]}

        rows = np.random.default_rng(1).normal(size=(3, 2, 2)).astype(np.float32)
        module = Decompose()
        live = live_of(module, rows)
        assert module.training
        assert shapes(live) == {"square": "float32[batch, 2, 2]", "values": "float32[batch, 2]"}
        wanted = np.linalg.svd(rows, compute_uv=False)
        np.testing.assert_allclose(answers(live, rows)["values"], wanted, rtol=1e-5)
        live = live_of(own(lambda t: t.relu()), torch.tensor([[-1.0, 2.0]]))
        assert answers(live, np.array([[-1, 2]], np.float32))["output"].tolist() == [[0, 2]]

    def test_an_estimator_answers_its_predict_and_more_by_name(self, record_source: Any) -> None:
        record_source("Python", "estimator or module that no route can convert", limits="local workers only")
        source = Centroids().fit(X, Y)
        live = live_of(source, X)
        assert shapes(live) == {
            "X": "float64[batch, 4]", "label": "int64[batch]", "decision_function": "float64[batch]"
        }  # fmt: skip
        np.testing.assert_array_equal(answers(live, X)["label"], source.predict(X))
        scores = answers(live, X, "decision_function")["decision_function"]
        np.testing.assert_array_equal(scores, source.decision_function(X))

    @pytest.mark.parametrize("columns", [None, ["a", "b", "c", "d"]])
    def test_a_native_booster_is_given_the_matrix_that_its_predict_takes(self, columns: Any) -> None:
        import xgboost

        rows = pd.DataFrame(X, columns=columns) if columns else X
        linear = xgboost.train({"booster": "gblinear", "nthread": 1}, xgboost.DMatrix(rows, Y), 5)
        live = live_of(linear, rows)
        assert "gblinear" in live.reason
        np.testing.assert_array_equal(answers(live, rows)["value"], linear.predict(xgboost.DMatrix(rows)))

    def test_catboosts_own_categories_run_as_they_are_and_unseen_ones_too(self) -> None:
        import catboost

        frame = pd.DataFrame({"city": ["Ulm", "Bonn", "Köln", "Ulm"] * 20, "x": np.linspace(0, 1, 80)})
        target = (frame["city"] == "Ulm").astype(int)
        settings = {"iterations": 5, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
        source = catboost.CatBoostClassifier(cat_features=["city"], **settings).fit(frame, target)
        live = live_of(source, frame)
        assert "keeps hashes in place of the values" in live.reason
        strange = frame.assign(city=["Rom", *frame["city"][1:]])
        np.testing.assert_array_equal(answers(live, strange)["label"], source.predict(strange))

    def test_only_the_methods_that_are_asked_for_run(self) -> None:
        class Costly:
            def predict(self, x: Any) -> Any:
                return x[:, 0]

            def transform(self, x: Any) -> Any:
                if len(x) == 3:
                    raise RuntimeError("asked")
                return x

        live = live_of(Costly(), X)
        assert len(answers(live, X[:3])["value"]) == 3
        with pytest.raises(ms.ModelServeError, match="asked"):
            answers(live, X[:3], "transformed")


class TestWhatIsFoundByTrying:
    def test_rows_that_depend_on_each_other_are_never_joined(self) -> None:
        live = live_of(own(lambda x: x - x.mean(axis=0)), X)
        assert live.signature.is_batched
        assert not live.rows_independent

    def test_what_has_no_rows_is_a_fixed_shape(self) -> None:
        live = live_of(own(lambda square: np.linalg.inv(square)), np.eye(3) * 2)
        assert shapes(live) == {"square": "float64[3, 3]", "output": "float64[3, 3]"}

    def test_an_answer_without_rows_keeps_its_shape(self) -> None:
        live = live_of(own(lambda x: {"mean": x.mean(), "gram": x @ x.T}), X)
        assert shapes(live) == {"x": "float64[batch, 4]", "mean": "float64[]", "gram": "float64[batch, batch]"}

    def test_a_scalar_is_a_number_without_rows(self) -> None:
        assert shapes(live_of(own(lambda x: x + 1), 2.0)) == {"x": "float64[]", "output": "float64[]"}

    def test_what_answers_otherwise_each_time_says_so(self) -> None:
        random = np.random.default_rng()
        live = live_of(own(lambda x: x + random.normal(size=x.shape)), X)
        assert "differs by" in live.reports[0]["reason"]
        assert "differs by" in str(live)

    def test_axes_can_be_said_and_names_cannot(self) -> None:
        wide = Signature(
            (TensorSpec("x", "float64", ("batch", "width")),), (TensorSpec("output", "float64", ("batch", "width")),)
        )
        live = live_of(own(doubled), X, signature=wide)
        assert answers(live, X[:, :2])["output"].shape == (12, 2)
        other = Signature((TensorSpec("z", "float64", ("batch", 4)),), wide.outputs)
        with pytest.raises(InputError, match="its own"):
            portable_or_live(doubled, X, signature=other)


class TestPipelinesInTwoParts:
    def test_leading_steps_run_as_they_are_and_the_rest_is_portable(self, record_source: Any) -> None:
        limits = "local workers only; the steps from the first portable tail on run as a graph"
        record_source("Python", "pipeline whose first steps cannot be converted", limits=limits)

        def bent(x: Any) -> Any:
            return np.log1p(np.abs(x))

        source = make_pipeline(FunctionTransformer(own(bent)), StandardScaler(), LogisticRegression()).fit(X, Y)
        live = live_of(source, X)
        assert "'standardscaler', 'logisticregression' run as a portable model" in live.reason
        assert live.reports[0]["is_faithful"]
        assert b"LogisticRegression" not in live.payload
        np.testing.assert_array_equal(answers(live, X)["label"], source.predict(X))

    def test_where_the_last_step_has_no_portable_form_all_runs_as_it_is(self) -> None:
        source = make_pipeline(StandardScaler(), Centroids()).fit(X, Y)
        live = live_of(source, X)
        assert "portable model" not in live.reason
        np.testing.assert_array_equal(answers(live, X)["label"], source.predict(X))


def test_looking_for_a_sources_framework_never_runs_a_model() -> None:
    module = torch.nn.BatchNorm1d(4)
    assert module.training
    portable_or_live(module, torch.ones(3, 4))
    assert int(module.num_batches_tracked) == 0


class TestWhatIsSaid:
    def test_a_source_that_would_lie_says_so_in_the_reason(self) -> None:
        source = LogisticRegression().fit(X, Y)
        with pytest.raises(UnfaithfulError):
            convert(source, X, tolerance=0)
        live = live_of(source, X, tolerance=0)
        assert "could not be converted faithfully" in live.reason
        assert "differs by" in live.reason
        np.testing.assert_array_equal(answers(live, X)["label"], source.predict(X))

    def test_its_text_tells_why_what_and_how_it_was_tried(self) -> None:
        text = str(live_of(own(doubled), X))
        assert text.splitlines()[0] == "runs as it is, in Python, by workers of this program only"
        for said in ("plain Python callable", "float64[batch, 4]", "independent", "53 rows: the copy answers"):
            assert said in text

    def test_a_bundle_is_refused_with_the_reason_whatever_was_asked_first(self) -> None:
        model = ms.Model(own(doubled), X)
        with pytest.raises(ConversionError, match="no portable form"):
            model.bundle()
        assert isinstance(model.servable(), LiveCallable)
        with pytest.raises(NotSupportedError, match=r"no portable form(.|\n)*local target only"):
            model.bundle()

    def test_it_is_served_by_local_workers_and_the_status_says_so(self) -> None:
        lines: list[str] = []
        with ms.Model(own(doubled), X).serve("local", workers=1, on_progress=lines.append) as deployment:
            np.testing.assert_array_equal(deployment.predict(X), X * 2)
            np.testing.assert_array_equal(deployment.predict(X[0]), X[0] * 2)
            assert "plain Python callable" in deployment.status().message
        assert any("plain Python callable" in line for line in lines)


class TestRefusals:
    def test_a_missing_example_is_asked_for_with_the_line_to_write(self) -> None:
        with pytest.raises(ExampleRequiredError, match=r"Model\(source, example=X\[:8\]\)"):
            portable_or_live(doubled)

    def test_a_class_is_no_model(self) -> None:
        with pytest.raises(UnsupportedSourceError, match="Give an instance"):
            portable_or_live(LogisticRegression, X)

    @pytest.mark.parametrize("source", [object(), 3, np.ones(3), {}])
    def test_what_cannot_be_called_is_refused(self, source: Any) -> None:
        with pytest.raises(UnsupportedSourceError, match="No converter knows"):
            portable_or_live(source, X)

    def test_what_cannot_be_copied_says_what_to_do(self, record_source: Any) -> None:
        lock = threading.Lock()

        def locked(x: Any) -> Any:
            with lock:
                return x

        with pytest.raises(ConversionError, match=r"cannot be copied to worker processes(.|\n)*first called") as caught:
            portable_or_live(own(locked), X)
        record_source("Python", "callable that cannot be pickled", refused=str(caught.value))

    def test_a_source_that_refuses_the_example_says_so(self) -> None:
        with pytest.raises(ConversionError, match="refuses the example itself: ZeroDivisionError"):
            portable_or_live(own(lambda x: x / (1 // 0)), X)

    @pytest.mark.parametrize("answer", [object(), [object()], np.array(["2026-01-01"], "M8[D]"), {}, ()])
    def test_an_answer_that_is_no_tensor_is_refused(self, answer: Any) -> None:
        with pytest.raises((SignatureError, ConversionError), match="answers with"):
            portable_or_live(own(lambda x: answer), X)

    def test_more_parts_than_parameters_are_refused(self) -> None:
        with pytest.raises(SignatureError, match="2 parts, and the source takes 1: x"):
            portable_or_live(doubled, (X, X))

    @pytest.mark.parametrize("example", [[], [object()], pd.DataFrame({"a": []}), {"a": []}])
    def test_an_example_without_rows_or_of_no_known_kind_is_refused(self, example: Any) -> None:
        with pytest.raises(SignatureError):
            portable_or_live(doubled, example)
