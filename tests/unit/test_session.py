"""One model loaded in this process answers by name, and says what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cloudpickle
import numpy as np
import pytest

from modelserve.bundle import LiveCallable
from modelserve.errors import BundleError, ModelRunError, SignatureError
from modelserve.session import CallableSession, Session, load, open_session
from modelserve.testing import models

X = {"x": np.ones((2, 8), np.float32)}


def live(call: Callable[..., Any]) -> CallableSession:
    call.__module__ = "__main__"
    return CallableSession(replace(models.live(), payload=cloudpickle.dumps(call)))


def test_it_gives_the_primary_output_or_those_asked_for() -> None:
    session = Session(models.mlp())
    assert list(session.run(X)) == ["label"]
    both = session.run(X, ["probabilities", "label"])
    assert list(both) == ["probabilities", "label"]
    assert both["probabilities"].sum(axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize("servable", [models.mlp, models.live])
def test_an_output_that_is_not_there_is_named(servable: Callable[[], Any]) -> None:
    with pytest.raises(SignatureError, match="no output 'z'; the outputs are"):
        open_session(servable()).run({"x": np.ones((2, 8), np.float32)}, ["z"])


def test_inputs_that_the_model_itself_refuses_are_its_error() -> None:
    with pytest.raises(ModelRunError, match="refused these inputs"):
        Session(models.picky()).run({"index": np.array([99])})


def test_text_comes_as_text() -> None:
    word = np.array(["größer", ""], object)
    answer = Session(models.text()).run({"word": word})["echo"]
    assert (answer.dtype, answer.tolist()) == (np.dtype(object), ["größer", ""])


def test_a_file_that_is_no_model_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="cannot load this model"):
        load(b"rubbish")


def test_a_callable_answers_as_a_bundle_does() -> None:
    session = open_session(models.live())
    assert isinstance(session, CallableSession)
    assert session.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[2, 2]]


def test_what_a_callable_raises_is_told() -> None:
    with pytest.raises(ModelRunError, match="raised ZeroDivisionError: division by zero") as caught:
        live(lambda _: 1 / 0).run({})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_callable_that_forgets_an_output_is_told_so() -> None:
    with pytest.raises(SignatureError, match="gave no 'y'"):
        live(lambda _: {"z": 1}).run({})


@pytest.mark.parametrize("answer", [None, 3, [1.0], np.ones(2)])
def test_a_callable_that_gives_no_names_is_told_so(answer: object) -> None:
    with pytest.raises(SignatureError, match="must return a dict of outputs by name"):
        live(lambda _: answer).run({})


@pytest.mark.parametrize(("answer", "want"), [(3.5, np.float64), ([True], np.bool_), ("a", object), (["a"], object)])
def test_what_a_callable_gives_is_an_array(answer: object, want: type) -> None:
    assert live(lambda _: {"y": answer}).run({})["y"].dtype == want


def test_a_live_callable_is_named_by_what_it_is() -> None:
    assert models.live().digest != LiveCallable(b"other", models.live().signature, "").digest
    assert len(models.live().digest) == 64
