"""The Open Inference Protocol, judged by the client that Triton's makers publish."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.serving import ServerProcess, bundle_folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    patch = pytest.MonkeyPatch()
    patch.setenv("MODELSERVE_HOME", str(tmp_path_factory.mktemp("home")))
    folder = bundle_folder(
        tmp_path_factory.mktemp("models"),
        linear=models.linear(),
        classifier=models.mlp(),
        two=models.two_inputs(),
        words=models.text(),
        several={"1": models.linear(seed=1), "2": models.linear(seed=2), "10": models.linear(seed=3)},
    )
    with ServerProcess("--models", str(folder), "--workers", "1") as running:
        yield running
    patch.undo()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(server.address)
    yield made
    made.close()


def _input(name: str, array: np.ndarray, datatype: str, *, binary: bool) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def test_the_server_says_what_it_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    said = client.get_server_metadata()
    assert said["name"] == "modelserve"
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(said["extensions"])


def test_a_model_says_what_it_takes_and_gives(client: triton.InferenceServerClient) -> None:
    said = client.get_model_metadata("classifier")
    assert said["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}]
    assert [output["name"] for output in said["outputs"]] == ["label", "probabilities"]
    assert client.get_model_config("classifier")["input"][0]["dims"] == [8]


@pytest.mark.parametrize("binary", [True, False])
def test_a_row_is_answered_as_the_model_answers_it(client: triton.InferenceServerClient, binary: bool) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    asked = triton.InferRequestedOutput("y", binary_data=binary)
    answer = client.infer("linear", [_input("x", x, "FP32", binary=binary)], outputs=[asked], request_id="seven")
    np.testing.assert_allclose(answer.as_numpy("y"), Session(models.linear()).run({"x": x})["y"], rtol=1e-6)
    assert answer.get_response()["id"] == "seven"


def test_without_outputs_all_of_them_come(client: triton.InferenceServerClient) -> None:
    answer = client.infer("classifier", [_input("x", np.ones((2, 8), np.float32), "FP32", binary=True)])
    assert answer.as_numpy("label").dtype == np.int64
    assert answer.as_numpy("probabilities").shape == (2, 3)


@pytest.mark.parametrize("binary", [True, False])
def test_several_inputs_go_by_name(client: triton.InferenceServerClient, binary: bool) -> None:
    left, right = np.ones((2, 3), np.float32), np.array([5, 7])
    inputs = [_input("right", right, "INT64", binary=binary), _input("left", left, "FP32", binary=binary)]
    total = client.infer("two", inputs).as_numpy("total")
    np.testing.assert_array_equal(total, [[6, 6, 6], [8, 8, 8]])


@pytest.mark.parametrize("binary", [True, False])
def test_text_goes_there_and_back(client: triton.InferenceServerClient, binary: bool) -> None:
    words = np.array(["größer", "", "a\u0000b"], object)
    asked = triton.InferRequestedOutput("echo", binary_data=binary)
    answer = client.infer("words", [_input("word", words, "BYTES", binary=binary)], outputs=[asked])
    found = [item.decode() if isinstance(item, bytes) else item for item in answer.as_numpy("echo")]
    assert found == list(words)


def test_the_highest_version_answers_unless_another_is_named(client: triton.InferenceServerClient) -> None:
    rows = [_input("x", np.ones((1, 4), np.float32), "FP32", binary=True)]
    default = client.infer("several", rows)
    assert default.get_response()["model_version"] == "10"
    assert client.get_model_metadata("several")["versions"] == ["1", "2", "10"]
    with pytest.raises(InferenceServerException, match="not ready"):
        client.infer("several", rows, model_version="1")


def test_models_are_listed_loaded_and_unloaded(client: triton.InferenceServerClient) -> None:
    states = {(one["name"], one["version"]): one["state"] for one in client.get_model_repository_index()}
    assert states["several", "1"] == "UNAVAILABLE"
    assert states["linear", "1"] == "READY"
    client.unload_model("linear")
    assert not client.is_model_ready("linear")
    assert client.is_model_ready("classifier")
    client.load_model("linear")
    assert client.is_model_ready("linear")


def test_what_a_model_did_is_counted(client: triton.InferenceServerClient) -> None:
    rows = [_input("x", np.ones((5, 8), np.float32), "FP32", binary=True)]
    (before,) = client.get_inference_statistics("classifier")["model_stats"]
    client.infer("classifier", rows)
    with pytest.raises(InferenceServerException):
        client.infer("classifier", [_input("x", np.ones((5, 7), np.float32), "FP32", binary=True)])
    (after,) = client.get_inference_statistics("classifier")["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 5
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]


@pytest.mark.parametrize(
    ("name", "datatype", "array", "message"),
    [
        ("y", "FP32", np.ones((1, 4), np.float32), "unknown: 'y'"),
        ("x", "FP64", np.full((1, 4), 0.1), "would change"),
        ("x", "FP32", np.ones((1, 5), np.float32), "axis 1 must be 4"),
        ("x", "BYTES", np.array([["a", "b", "c", "d"]], object), "must be float32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    client: triton.InferenceServerClient, name: str, datatype: str, array: np.ndarray, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message):
        client.infer("linear", [_input(name, array, datatype, binary=True)])


def test_many_at_once_each_get_their_own_answer(server: ServerProcess) -> None:
    client = triton.InferenceServerClient(server.address, concurrency=16)
    waiting = [
        client.async_infer("words", [_input("word", np.array([f"w{n}"], object), "BYTES", binary=True)])
        for n in range(200)
    ]
    found = [one.get_result().as_numpy("echo")[0].decode() for one in waiting]
    client.close()
    assert found == [f"w{n}" for n in range(200)]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed(client: triton.InferenceServerClient, algorithm: str) -> None:
    rows = [_input("x", np.ones((1, 4), np.float32), "FP32", binary=True)]
    answer = client.infer("linear", rows, request_compression_algorithm=algorithm)
    assert answer.as_numpy("y").shape == (1, 3)
