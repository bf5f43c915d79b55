"""A model is replaced by one of another signature while requests are on their way to it."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelserve.bundle import Bundle
from modelserve.errors import SignatureError
from modelserve.runtime.server.formats import rows
from modelserve.runtime.server.formats.question import Described
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.load import Load
from modelserve.testing.serving import ServerThread, bundle_folder

BODY = b'{"instances":[[1,2,3,4]]}'


def answer_of(bundle: Bundle) -> list[list[float]]:
    return Session(bundle).run({"x": np.array([[1, 2, 3, 4]], np.float32)})["y"].tolist()


def ask_while_updating(running: ServerThread, newer: Bundle) -> Any:
    """Ask a question during whose reading the model is replaced."""
    served = running.server.repository.find("model")
    read_for: list[str] = []

    def read(model: Described) -> Any:
        question = rows.read(BODY, model)
        if not read_for:
            served.update(newer)
        read_for.append(model.signature.inputs[0].name)
        return question

    async def ask() -> Response:
        return await served.ask(read, Request(b"POST", b"/predict", {}, ""))

    response = running.call(ask())
    assert len(read_for) == 2
    return json.loads(response.body)["predictions"]  # type: ignore[arg-type]  # a body in one piece


def test_a_question_that_fits_the_new_model_too_is_answered_by_it() -> None:
    newer = models.linear(seed=2)
    with ServerThread(model=models.linear(seed=1).path) as running:
        np.testing.assert_allclose(ask_while_updating(running, newer), answer_of(newer), rtol=1e-6)


def test_a_question_that_does_not_fit_the_new_model_is_refused_in_its_words() -> None:
    with (
        ServerThread(model=models.linear().path) as running,
        pytest.raises(SignatureError, match="batch, 8"),
    ):
        ask_while_updating(running, models.mlp())


@pytest.mark.long
def test_under_load_every_answer_is_of_one_model_or_refused_by_the_other(tmp_path: Path) -> None:
    older, newer = models.linear(), models.mlp()
    folder = bundle_folder(tmp_path, a=older)
    with ServerThread(models=folder) as running:
        expected = answer_of(older)

        def ask() -> None:
            try:
                with urllib.request.urlopen(f"{running.url}/v1/models/a:predict", BODY, timeout=30) as answer:
                    np.testing.assert_allclose(json.loads(answer.read())["predictions"], expected, rtol=1e-6)
            except urllib.error.HTTPError as error:
                with error:
                    found = error.code, json.loads(error.read())["code"]
                if found != (400, "signature"):
                    raise

        with Load(ask, threads=4) as load:
            for bundle in (newer, older, newer, older):
                load.wait_for(20)
                shutil.rmtree(folder / "a")
                bundle_folder(folder, a=bundle)
                running.call(running.server.repository.load("a"))
            load.wait_for(20)
    assert load.failures == []
