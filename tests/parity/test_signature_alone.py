"""A signature is enough where there is no example: rows that fit it are made up, and the certificate says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

import modelserve as ms
from modelserve.bundle import LiveCallable
from modelserve.convert import convert, portable_or_live
from modelserve.errors import ConversionError, ExampleRequiredError
from modelserve.session import Session, open_session
from modelserve.tensors import Signature, TensorSpec

IRIS = load_iris(as_frame=True, return_X_y=True)
CLASSIFIER = LogisticRegression(max_iter=500).fit(IRIS[0].to_numpy(), IRIS[1])
SCORES = (TensorSpec("scores", "float32", ("batch", 2)),)
LABEL = (TensorSpec("label", "int64", ("batch",)),)


class Tagger(nn.Module):
    """Whole numbers are rows of its table: what is made up must be among them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(3, 4), nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head((self.table(ids) * weights.unsqueeze(-1)).sum(1))
        return found


def answer(bundle: Any, inputs: Any) -> Any:
    return Session(bundle).run(bundle.signature.check(inputs).tensors)[bundle.signature.primary]


def test_a_network_of_several_inputs_takes_any_size_that_the_signature_leaves_open() -> None:
    model = Tagger().eval()
    shape = ("batch", "tokens")
    takes = (TensorSpec("ids", "int64", shape), TensorSpec("weights", "float32", shape))
    bundle = ms.Model(model, signature=Signature(takes, SCORES)).bundle()
    assert [(spec.name, spec.dtype, spec.shape) for spec in bundle.signature.inputs] == [
        ("ids", "int64", shape),
        ("weights", "float32", shape),
    ]
    ids, weights = np.array([[0, 2, 1, 2, 1, 0, 0]]), np.random.default_rng(0).normal(size=(1, 7)).astype(np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids), torch.from_numpy(weights)).numpy()
    np.testing.assert_allclose(answer(bundle, {"ids": ids, "weights": weights}), wanted, atol=1e-5)


def test_an_estimator_takes_an_array_or_a_table_with_its_columns() -> None:
    x, y = IRIS
    plain = convert(CLASSIFIER, signature=Signature((TensorSpec("X", "float64", ("batch", 4)),), LABEL))
    np.testing.assert_array_equal(answer(plain, x.to_numpy()), CLASSIFIER.predict(x.to_numpy()))
    model = LogisticRegression(max_iter=500).fit(x, y)
    takes = (TensorSpec("X", "float64", ("batch", 4), columns=tuple(x.columns)),)
    named = convert(model, signature=Signature(takes, LABEL))
    np.testing.assert_array_equal(answer(named, x[list(reversed(x.columns))]), model.predict(x))


def test_a_pipeline_over_columns_takes_a_table_of_numbers_and_text() -> None:
    frame = pd.DataFrame({"age": [20.0, 50.0, 40.0, 70.0], "city": ["a", "Ulm", "Bonn", "a"]})
    encode = ColumnTransformer(
        [("numbers", StandardScaler(), ["age"]), ("words", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    )
    model = make_pipeline(encode, LogisticRegression()).fit(frame, [0, 1, 0, 1])
    takes = (TensorSpec("age", "float64", ("batch", 1)), TensorSpec("city", "string", ("batch", 1)))
    bundle = convert(model, signature=Signature(takes, LABEL))
    np.testing.assert_array_equal(answer(bundle, frame), model.predict(frame))


def test_the_certificate_says_that_the_rows_were_made_up_and_they_are_always_the_same() -> None:
    signature = Signature((TensorSpec("X", "float64", ("batch", 4)),), LABEL)
    first, second = (convert(CLASSIFIER, signature=signature) for _ in range(2))
    assert first.manifest.reports[0]["conversion"]["example"] == "made up from the signature"
    assert first.digest == second.digest
    given = convert(CLASSIFIER, IRIS[0].to_numpy()[::10], signature=signature)
    assert "example" not in given.manifest.reports[0]["conversion"]


def test_what_runs_as_it_is_takes_made_up_rows_too() -> None:
    def halves(x: Any) -> Any:
        return x / 2

    halves.__module__ = "__main__"
    signature = Signature((TensorSpec("x", "float64", ("batch", 3)),), (TensorSpec("output", "float64", ("batch", 3)),))
    live = portable_or_live(halves, signature=signature)
    assert isinstance(live, LiveCallable)
    np.testing.assert_array_equal(open_session(live).run({"x": np.ones((2, 3))})["output"], np.full((2, 3), 0.5))


def test_a_source_that_refuses_made_up_rows_asks_for_real_ones() -> None:
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit([["Ulm"], ["Bonn"]], [0, 1])
    signature = Signature((TensorSpec("X", "string", ("batch", 1)),), LABEL)
    with pytest.raises(ConversionError, match=r"made up from the signature. Give rows .*example=X\[:8\]"):
        convert(model, signature=signature)


def test_without_a_signature_either_an_example_is_asked_for() -> None:
    with pytest.raises(ExampleRequiredError, match=r"example=X\[:8\]"):
        convert(CLASSIFIER)
