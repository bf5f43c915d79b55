"""The suite for answers: whose they are, and what a request that fails costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from modelserve.backend import (
    Request,
)
from modelserve.bundle import Bundle
from modelserve.errors import (
    DeadlineError,
    ModelRunError,
    ModelServeError,
)
from modelserve.session import Session
from modelserve.tensors import Array
from modelserve.testing import models
from modelserve.testing.conformance.comparing import (
    ROWS,
    Serve,
    answer_of,
    assert_close,
    assert_same,
    indexes,
)
from modelserve.testing.place import Place
from modelserve.wire import Message


class AnswersConformance:
    """What every place keeps of a request and its answer."""

    @pytest.mark.parametrize(
        "make", [models.linear, models.mlp, models.two_inputs, models.text, models.joint, models.picky]
    )
    def test_answers_are_the_sessions_bit_for_bit(self, serve: Serve, make: Callable[[], Bundle]) -> None:
        bundle = make()
        names = [spec.name for spec in bundle.signature.outputs]
        answers = serve(bundle).predict(bundle.example(), outputs=names)
        wanted = Session(bundle).run(bundle.example(), names)
        for name in names:
            assert_same(answers[name], wanted[name])

    def test_the_primary_output_is_the_answer_when_none_is_named(self, serve: Serve) -> None:
        bundle = models.mlp()
        assert_same(serve(bundle).predict(bundle.example()), Session(bundle).run(bundle.example())["label"])

    def test_one_row_needs_no_batch_axis(self, serve: Serve) -> None:
        bundle = models.linear()
        assert_same(serve(bundle).predict(ROWS[0]), answer_of(bundle, ROWS[:1])[0])

    def test_a_large_request_and_its_reply_travel_whole(self, serve: Serve) -> None:
        bundle = models.linear()
        rows = np.random.default_rng(1).normal(size=(200_000, 4)).astype(np.float32)
        np.testing.assert_allclose(serve(bundle).predict(rows), answer_of(bundle, rows), rtol=1e-4, atol=1e-5)

    def test_answers_stay_what_they_were_when_others_follow(self, serve: Serve) -> None:
        deployment, bundle = serve(models.linear()), models.linear()
        answers = [deployment.predict(ROWS[row : row + 1]) for row in range(len(ROWS))]
        for row, answer in enumerate(answers):
            assert_same(answer, answer_of(bundle, ROWS[row : row + 1]))

    def test_tasks_are_answered_each_with_its_own(self, serve: Serve) -> None:
        deployment, bundle = serve(models.linear()), models.linear()

        async def ask() -> Sequence[Array]:
            answers: Sequence[Array] = await asyncio.gather(
                *(deployment.apredict(ROWS[row : row + 1]) for row in indexes(64))
            )
            return answers

        for row, answer in zip(indexes(64), asyncio.run(ask()), strict=True):
            assert_close(answer, answer_of(bundle, ROWS[row : row + 1]))

    def test_threads_are_answered_each_with_its_own(self, serve: Serve) -> None:
        deployment, bundle = serve(models.linear()), models.linear()
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda row: deployment.predict(ROWS[row : row + 1]), indexes(200)))
        for row, answer in zip(indexes(200), answers, strict=True):
            assert_close(answer, answer_of(bundle, ROWS[row : row + 1]))

    def test_the_models_own_refusal_costs_only_its_request(self, serve: Serve) -> None:
        deployment = serve(models.picky())
        with pytest.raises(ModelRunError):
            deployment.predict(np.array([99]))
        assert deployment.predict(np.array([3, 0])).tolist() == [3.0, 0.0]

    def test_bytes_that_are_no_request_are_refused(self, serve: Serve) -> None:
        deployment = serve(models.linear())
        request = Request(Message(b'{"inputs":[]}', ()), 1, 10.0)
        with pytest.raises(ModelServeError):
            deployment._endpoint.submit(request).result()  # noqa: SLF001  # below what a deployment lets through
        assert deployment.predict(ROWS).shape == (32, 3)

    def test_a_late_answer_is_a_deadline_error_and_the_next_is_answered(self, serve: Serve, place: Place) -> None:
        deployment = serve(models.slow(2_000))
        rows = np.ones((512, 128), np.float32)
        with pytest.raises(DeadlineError):
            deployment.predict(rows, timeout_s=0.05)
        assert deployment.predict(rows[:1], timeout_s=place.deadline_s).shape == (1, 128)
