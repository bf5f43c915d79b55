"""A model that answers, over a backend in this process."""

import asyncio
import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from modelserve import Bundle, Deployment, Model, Scale, attach, errors
from modelserve.backend import Capability, Limits, Support
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.memory import InMemoryBackend, MemoryCloud

X = np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4)


@pytest.fixture
def cloud(memory: MemoryCloud) -> MemoryCloud:
    return memory


@pytest.fixture
def linear() -> Bundle:
    return models.linear()


@pytest.fixture
def deployment(cloud: MemoryCloud, linear: Bundle):
    with Model(linear).serve("memory") as deployment:
        yield deployment


def expected(bundle: Bundle, tensors: dict) -> np.ndarray:
    return Session(bundle).run(tensors)[bundle.signature.primary]


def test_predict_answers_what_the_session_answers(deployment: Deployment, linear: Bundle) -> None:
    np.testing.assert_array_equal(deployment.predict(X), expected(linear, {"x": X}))


def test_lists_are_taken_and_one_row_needs_no_batch_axis(deployment: Deployment, linear: Bundle) -> None:
    answer = deployment.predict(X[0].tolist())
    assert answer.shape == (3,)
    np.testing.assert_array_equal(answer, expected(linear, {"x": X[:1]})[0])


def test_named_outputs_come_as_a_dict(cloud: MemoryCloud) -> None:
    with Model(models.mlp()).serve("memory") as deployment:
        rows = np.ones((2, 8), np.float32)
        assert deployment.predict(rows).dtype == np.int64
        answers = deployment.predict(rows, outputs=["probabilities", "label"])
        assert list(answers) == ["probabilities", "label"]
        assert answers["probabilities"].shape == (2, 3)
        assert deployment.predict(rows[0], outputs=["probabilities"])["probabilities"].shape == (3,)


@pytest.mark.parametrize("outputs", [["other"], [], "y"])
def test_outputs_that_do_not_exist_are_refused(deployment: Deployment, outputs: object) -> None:
    with pytest.raises(errors.SignatureError, match="output"):
        deployment.predict(X, outputs=outputs)


def test_text_and_several_inputs_travel(cloud: MemoryCloud) -> None:
    with Model(models.text()).serve("memory") as deployment:
        assert deployment.predict(["größer", ""]).tolist() == ["größer", ""]
        assert deployment.predict("one") == "one"
    with Model(models.two_inputs()).serve("memory") as deployment:
        answer = deployment.predict({"left": np.zeros((2, 3), np.float32), "right": [1, 2]})
        assert answer.tolist() == [[1, 1, 1], [2, 2, 2]]


def test_wrong_inputs_are_refused_before_anything_is_sent(cloud: MemoryCloud, deployment: Deployment) -> None:
    cloud.gate.clear()
    with pytest.raises(errors.SignatureError, match="'x'"):
        deployment.predict(np.ones((2, 5), np.float32))


def test_apredict_answers_many_tasks(deployment: Deployment, linear: Bundle) -> None:
    async def ask() -> list:
        return await asyncio.gather(*(deployment.apredict(X[row : row + 1]) for row in range(10)))

    answers = asyncio.run(ask())
    np.testing.assert_array_equal(
        np.concatenate(answers), [expected(linear, {"x": X[i : i + 1]})[0] for i in range(10)]
    )


def test_many_threads_get_their_own_answers(deployment: Deployment, linear: Bundle) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda row: deployment.predict(X[row]), [*range(10)] * 20))
    wanted = [expected(linear, {"x": X[row : row + 1]})[0] for row in range(10)] * 20
    np.testing.assert_array_equal(answers, wanted)


def test_an_answer_that_does_not_come_in_time_is_a_deadline_error(cloud: MemoryCloud, deployment: Deployment) -> None:
    cloud.gate.clear()
    with pytest.raises(errors.DeadlineError, match="timeout_s"):
        deployment.predict(X, timeout_s=0.05)
    with pytest.raises(TimeoutError):
        asyncio.run(deployment.apredict(X, timeout_s=0.05))
    cloud.gate.set()


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_makes_no_sense_is_refused(deployment: Deployment, timeout_s: float) -> None:
    with pytest.raises(errors.InputError, match="timeout_s"):
        deployment.predict(X, timeout_s=timeout_s)


def test_the_models_own_refusal_reaches_the_caller(cloud: MemoryCloud) -> None:
    with Model(models.picky()).serve("memory") as deployment:
        with pytest.raises(errors.ModelRunError, match="refused"):
            deployment.predict(np.array([7]))
        assert deployment.predict(np.array([3])).tolist() == [3.0]


def test_a_request_over_the_limit_is_split_by_rows_and_joined_in_order(
    cloud: MemoryCloud, deployment: Deployment
) -> None:
    rows = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    whole = deployment.predict(rows)
    cloud.limits = Limits(request_bytes=600, parallel=3)
    np.testing.assert_allclose(deployment.predict(rows), whole, rtol=1e-6)
    np.testing.assert_allclose(asyncio.run(deployment.apredict(rows)), whole, rtol=1e-6)


def test_a_large_request_is_split_where_the_place_measured_that_to_be_faster(
    cloud: MemoryCloud, deployment: Deployment
) -> None:
    whole = deployment.predict(X)
    cloud.limits = Limits(parallel=2, split_rows=4)
    submitted = []
    submit = deployment._endpoint.submit
    deployment._endpoint = _Counting(deployment._endpoint, submitted, submit)
    np.testing.assert_allclose(deployment.predict(X), whole, rtol=1e-6)
    assert submitted == [5, 5]
    deployment.predict(X[:4])
    assert submitted == [5, 5, 4]


class _Counting:
    def __init__(self, endpoint: object, seen: list, submit: object) -> None:
        self.endpoint, self.seen, self.inner = endpoint, seen, submit

    def __getattr__(self, name: str) -> object:
        return getattr(self.endpoint, name)

    def submit(self, request: object) -> object:
        self.seen.append(request.rows)
        return self.inner(request)


def test_one_row_over_the_limit_is_a_clear_error(cloud: MemoryCloud, deployment: Deployment) -> None:
    cloud.limits = Limits(request_bytes=20)
    with pytest.raises(errors.InputError, match=r"takes at most 20; a single row cannot be split"):
        deployment.predict(X)


def test_a_model_whose_rows_depend_on_each_other_is_never_split(cloud: MemoryCloud) -> None:
    with Model(models.joint()).serve("memory") as deployment:
        rows = np.ones((100, 2), np.float32)
        cloud.limits = Limits(parallel=4, split_rows=10)
        assert deployment.predict(rows).shape == (100, 2)
        cloud.limits = Limits(request_bytes=300)
        with pytest.raises(errors.InputError, match="cannot be split: its answers depend"):
            deployment.predict(rows)


def test_all_parts_of_a_split_request_share_one_deadline(cloud: MemoryCloud, deployment: Deployment) -> None:
    cloud.limits = Limits(request_bytes=200, parallel=1)
    cloud.gate.clear()
    with pytest.raises(errors.DeadlineError):
        deployment.predict(np.ones((100, 4), np.float32), timeout_s=0.1)
    cloud.gate.set()


def test_a_later_part_has_only_the_time_that_is_left(
    cloud: MemoryCloud, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelserve.deployment import answer

    cloud.limits = Limits(request_bytes=200, parallel=1)
    clock = iter(range(100))
    monkeypatch.setattr(answer, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    question = answer.ask(deployment._endpoint, np.ones((40, 4), np.float32), None, 3.5)
    timeouts = []

    class Counting(_Counting):
        def submit(self, request: object) -> object:
            timeouts.append(request.timeout_s)
            return done

    done = type("Done", (), {"result": lambda self: None})()
    with pytest.raises(errors.DeadlineError, match="all parts"):
        answer.collect(Counting(deployment._endpoint, [], None), question)
    assert timeouts == [2.5, 1.5, 0.5]


def test_scale_takes_a_number_bounds_or_a_scale(deployment: Deployment) -> None:
    deployment.scale(3)
    assert len(deployment.status().replicas) == 3
    deployment.scale(minimum=2, maximum=4, target_inflight=8)
    assert deployment.status().scale == Scale(2, 4, target_inflight=8)
    deployment.scale(maximum=2)
    assert deployment.status().scale == Scale(1, 2)
    deployment.scale(Scale(1, 1))
    assert deployment.status().scale == Scale(1, 1)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"minimum": 1},
        {"replicas": 2, "maximum": 3},
        {"replicas": -1},
        {"minimum": -1, "maximum": 0},
        {"replicas": True},
        {"replicas": 1.5},
        {"minimum": 3, "maximum": 2},
        {"maximum": 2, "target_cpu": 2},
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(deployment: Deployment, wanted: dict) -> None:
    with pytest.raises(errors.InvalidScaleError):
        deployment.scale(**wanted)
    assert len(deployment.status().replicas) == 1


def test_resting_is_refused_where_a_place_lacks_it(deployment: Deployment) -> None:
    with pytest.raises(errors.NotSupportedError, match="'rest'"):
        deployment.scale(0)
    assert len(deployment.status().replicas) == 1


def test_what_a_place_lacks_is_refused_with_what_it_has(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.NotSupportedError, match=r"'memory' does not offer 'scale to zero' .*it offers scale"):
        deployment.scale(minimum=0, maximum=2)
    monkeypatch.setattr(InMemoryBackend, "support", {Capability.SCALE: Support.IMPOSSIBLE})
    for call in (lambda: deployment.scale(2), deployment.logs, lambda: deployment.update(models.linear(seed=1))):
        with pytest.raises(errors.NotSupportedError):
            call()


def test_update_answers_with_the_new_model(deployment: Deployment) -> None:
    other = models.linear(seed=1)
    deployment.update(Model(other))
    np.testing.assert_array_equal(deployment.predict(X), expected(other, {"x": X}))
    deployment.update(models.linear(seed=2))
    assert deployment.status().digest == models.linear(seed=2).digest


@pytest.mark.parametrize(
    "other", [models.mlp, models.two_inputs, lambda: models.linear(5), lambda: models.linear(4, 2)]
)
def test_update_refuses_a_model_that_takes_or_gives_something_else(deployment: Deployment, other) -> None:
    with pytest.raises(errors.SignatureError, match="another name"):
        deployment.update(other())


def test_update_takes_models_only(deployment: Deployment) -> None:
    with pytest.raises(errors.InputError, match="update takes a Model"):
        deployment.update("model.onnx")


def test_logs_are_lines(deployment: Deployment) -> None:
    assert deployment.logs() == [f"{deployment.name}: started"]


def test_every_call_after_close_is_refused_and_close_is_quiet_twice(deployment: Deployment) -> None:
    deployment.close()
    deployment.close()
    calls = [
        lambda: deployment.predict(X),
        lambda: asyncio.run(deployment.apredict(X)),
        lambda: deployment.scale(2),
        deployment.status,
        deployment.logs,
        lambda: deployment.update(models.linear()),
        deployment.__enter__,
    ]
    for call in calls:
        with pytest.raises(errors.DeploymentClosedError, match="closed"):
            call()
    assert "closed" in repr(deployment)


def test_leaving_with_closes_and_ephemeral_deletes(cloud: MemoryCloud, linear: Bundle) -> None:
    with Model(linear).serve("memory", name="stays"):
        pass
    with Model(linear).serve("memory", name="goes", ephemeral=True):
        assert set(cloud.running) == {"stays", "goes"}
    assert set(cloud.running) == {"stays"}


def test_delete_removes_it_also_after_close_and_twice(cloud: MemoryCloud, deployment: Deployment) -> None:
    deployment.close()
    deployment.delete()
    deployment.delete()
    assert cloud.running == {}


def test_a_forgotten_deployment_closes_its_endpoint(cloud: MemoryCloud, linear: Bundle) -> None:
    deployment = Model(linear).serve("memory")
    endpoint = deployment._endpoint
    del deployment
    gc.collect()
    assert endpoint.is_closed


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX warns of it, where another test imported JAX
def test_a_forked_child_that_ends_does_not_close_its_parents_deployment(cloud: MemoryCloud, linear: Bundle) -> None:
    deployment = Model(linear).serve("memory")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        deployment._let_go()
        os.write(write, b"1" if deployment._endpoint.is_closed else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"0"
    os.close(read)
    os.close(write)


def test_attach_finds_it_again(cloud: MemoryCloud, deployment: Deployment, linear: Bundle) -> None:
    again = attach(deployment.name, "memory")
    np.testing.assert_array_equal(again.predict(X), expected(linear, {"x": X}))
    assert again.signature == linear.signature


def test_attach_refuses_what_is_not_there(cloud: MemoryCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.DeploymentNotFoundError, match="'gone'"):
        attach("gone", "memory")
    with pytest.raises(errors.InputError):
        attach("", "memory")
    with pytest.raises(errors.BackendError, match=r"127\.0\.0\.1:1"):
        attach("http://127.0.0.1:1", None)
    monkeypatch.setattr(InMemoryBackend, "support", {Capability.ATTACH: Support.NOT_IMPLEMENTED})
    with pytest.raises(errors.NotSupportedError, match="attach"):
        attach("x", "memory")
