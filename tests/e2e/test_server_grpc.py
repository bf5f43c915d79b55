"""The Open Inference Protocol by gRPC, judged by the client that Triton's makers publish."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from modelserve.runtime.server.access.keys import KeyFile
from modelserve.runtime.server.rpc import schema
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.certificates import certificates
from modelserve.testing.serving import ServerProcess, ServerThread, bundle_folder

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


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
        several={"1": models.linear(seed=1), "2": models.linear(seed=2)},
    )
    with ServerProcess("--models", str(folder), "--workers", "1", "--grpc-port", "0") as running:
        yield running
    patch.undo()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_address) as made:
        yield made


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_address) as made:
        yield made


def _input(name: str, array: np.ndarray, datatype: str) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def _infer(channel: grpc.Channel, request: Any, **options: Any) -> Any:
    ask = channel.unary_unary(
        f"/{schema.SERVICE}/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    return ask(request, timeout=20, **options)


@pytest.mark.parametrize("name", schema.classes())
def test_a_message_is_what_the_makers_of_triton_publish(name: str) -> None:
    theirs = _published(name)
    for field in schema.classes()[name].DESCRIPTOR.fields:
        other = theirs.fields_by_name[field.name]
        kinds = {14: 5}  # an enumeration is a number on the wire
        assert field.number == other.number
        assert field.type == kinds.get(other.type, other.type)
        assert field.is_repeated == other.is_repeated
        if field.message_type is not None:
            assert other.message_type.name == field.message_type.name


def _published(name: str) -> Any:
    for module in (service_pb2, model_config_pb2):
        for found in module.DESCRIPTOR.message_types_by_name.values():
            for one in (found, *found.nested_types):
                if one.name == name:
                    return one
    raise AssertionError(name)


def test_the_server_says_what_it_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    said = client.get_server_metadata()
    assert said.name == "modelserve"
    assert {"model_repository", "statistics"} <= set(said.extensions)


def test_a_model_says_what_it_takes_and_gives(client: triton.InferenceServerClient) -> None:
    said = client.get_model_metadata("classifier", as_json=True)
    assert said["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "8"]}]
    assert [output["name"] for output in said["outputs"]] == ["label", "probabilities"]
    assert list(client.get_model_metadata("several").versions) == ["1", "2"]
    config = client.get_model_config("classifier").config
    assert (config.backend, config.input[0].data_type, list(config.input[0].dims)) == ("onnxruntime", 11, [8])
    assert client.is_model_ready("several", "2")
    assert client.get_model_config("words").config.input[0].data_type == model_config_pb2.TYPE_STRING


def test_a_row_is_answered_as_the_model_answers_it(client: triton.InferenceServerClient) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    answer = client.infer("linear", [_input("x", x, "FP32")], request_id="seven")
    np.testing.assert_allclose(answer.as_numpy("y"), Session(models.linear()).run({"x": x})["y"], rtol=1e-6)
    assert answer.get_response().id == "seven"
    assert answer.get_response().model_version == "1"


def test_outputs_come_all_or_as_asked(client: triton.InferenceServerClient) -> None:
    x = [_input("x", np.ones((2, 8), np.float32), "FP32")]
    everything = client.infer("classifier", x)
    assert everything.as_numpy("label").dtype == np.int64
    assert everything.as_numpy("probabilities").shape == (2, 3)
    some = client.infer("classifier", x, outputs=[triton.InferRequestedOutput("label")])
    assert some.as_numpy("probabilities") is None
    np.testing.assert_array_equal(some.as_numpy("label"), everything.as_numpy("label"))


def test_several_inputs_go_by_name(client: triton.InferenceServerClient) -> None:
    inputs = [_input("right", np.array([5, 7]), "INT64"), _input("left", np.ones((2, 3), np.float32), "FP32")]
    np.testing.assert_array_equal(client.infer("two", inputs).as_numpy("total"), [[6, 6, 6], [8, 8, 8]])


def test_text_goes_there_and_back(client: triton.InferenceServerClient) -> None:
    words = np.array(["größer", "", "a\u0000b"], object)
    answer = client.infer("words", [_input("word", words, "BYTES")])
    assert [item.decode() for item in answer.as_numpy("echo")] == list(words)


def test_values_in_their_own_fields_are_answered_alike(channel: grpc.Channel) -> None:
    request = service_pb2.ModelInferRequest(model_name="two")
    left = request.inputs.add(name="left", datatype="FP32", shape=[2, 3])
    left.contents.fp32_contents.extend([1.0] * 6)
    right = request.inputs.add(name="right", datatype="INT64", shape=[2])
    right.contents.int64_contents.extend([5, 7])
    response = _infer(channel, request)
    assert list(response.outputs[0].contents.fp32_contents) == [6, 6, 6, 8, 8, 8]
    assert not response.raw_output_contents
    request.parameters["binary_data_output"].bool_param = True
    assert np.frombuffer(_infer(channel, request).raw_output_contents[0], np.float32).tolist() == [6, 6, 6, 8, 8, 8]


def test_text_in_its_own_field_is_answered_alike(channel: grpc.Channel) -> None:
    request = service_pb2.ModelInferRequest(model_name="words")
    request.inputs.add(name="word", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"a", "ß".encode()])
    assert list(_infer(channel, request).outputs[0].contents.bytes_contents) == [b"a", "ß".encode()]


def test_models_are_listed_loaded_and_unloaded(client: triton.InferenceServerClient) -> None:
    states = {(one.name, one.version): one.state for one in client.get_model_repository_index().models}
    assert states["several", "1"] == "UNAVAILABLE"
    assert states["linear", "1"] == "READY"
    client.unload_model("two")
    with pytest.raises(InferenceServerException, match="unloaded") as told:
        client.get_model_metadata("two")
    assert told.value.status() == "StatusCode.UNAVAILABLE"
    client.load_model("two")
    assert client.is_model_ready("two")


def test_what_a_model_did_is_counted(client: triton.InferenceServerClient) -> None:
    rows = [_input("x", np.ones((5, 8), np.float32), "FP32")]
    (before,) = client.get_inference_statistics("classifier").model_stats
    client.infer("classifier", rows)
    (after,) = client.get_inference_statistics("classifier").model_stats
    assert after.inference_count - before.inference_count == 5
    for part in ("success", "queue", "compute_infer"):
        was, now = getattr(before.inference_stats, part), getattr(after.inference_stats, part)
        assert now.count - was.count == 1
        assert now.ns > was.ns


def test_many_in_one_stream_are_answered_in_order_and_a_bad_one_stops_nobody(
    client: triton.InferenceServerClient,
) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(20):
        word = np.array([f"w{number}"], object)
        client.async_stream_infer("nobody" if number == 7 else "words", [_input("word", word, "BYTES")])
    found = [answers.get(timeout=20) for _ in range(20)]
    client.stop_stream()
    assert [result.as_numpy("echo")[0].decode() if error is None else "!" for result, error in found] == [
        "!" if number == 7 else f"w{number}" for number in range(20)
    ]
    assert "no model 'nobody'" in str(found[7][1])


def test_an_answer_carries_its_id_and_where_the_time_went(channel: grpc.Channel) -> None:
    request = service_pb2.ModelInferRequest(model_name="linear", raw_input_contents=[ROW.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    ask = channel.unary_unary(
        f"/{schema.SERVICE}/ModelInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    _, call = ask.with_call(request, timeout=20, metadata=[("x-request-id", "mine")])
    said = dict(call.trailing_metadata())
    assert said["x-request-id"] == "mine"
    assert [part.split(";")[0].strip() for part in said["server-timing"].split(",")] == ["queue", "compute", "total"]


def _described(**tensor: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name="linear")
    contents = tensor.pop("raw", None)
    given = request.inputs.add(**{"name": "x", "datatype": "FP32", "shape": [1, 4], **tensor})
    if contents is not None:
        request.raw_input_contents.append(contents)
    elif "contents" not in tensor:
        given.contents.fp32_contents.extend([1.0] * 4)
    return request


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (_described(name="y"), "unknown: 'y'"),
        (_described(datatype="FP128"), "FP128"),
        (_described(datatype="INT64"), "takes int64_contents, got fp32_contents"),
        (_described(shape=[1, 5]), "takes 5 values, got 4"),
        (_described(shape=[-1, 4]), "sizes from 0 up"),
        (_described(raw=b"\0" * 15), "takes 16 bytes, 15"),
        (_described(shape=[1 << 62, 4], raw=b""), "takes"),
        (_described(contents={}, raw=None), "takes 4 values, got 0"),
        (_described(datatype="INT8", contents={"int_contents": [1, 2, 3, 300]}), "cannot hold"),
        (_described(datatype="BYTES", contents={"bytes_contents": [b"\xff"] * 4}), "not UTF-8"),
        (_described(datatype="FP16"), "Send raw_input_contents"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(channel: grpc.Channel, request_: Any, message: str) -> None:
    with pytest.raises(grpc.RpcError, match=message) as told:
        _infer(channel, request_)
    assert told.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_noise_is_refused_and_an_unknown_method_too(channel: grpc.Channel) -> None:
    for path, content, code in (
        ("ModelInfer", b"\xff" * 40, grpc.StatusCode.INVALID_ARGUMENT),
        ("Teapot", b"", grpc.StatusCode.UNIMPLEMENTED),
    ):
        with pytest.raises(grpc.RpcError) as told:
            channel.unary_unary(f"/{schema.SERVICE}/{path}")(content, timeout=20)
        assert told.value.code() is code


def test_compressed_messages_are_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as told:
        _infer(channel, _described(), compression=grpc.Compression.Gzip)
    assert told.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_is_kept() -> None:
    with (
        ServerThread(model=models.slow(2000).path, grpc_port=0) as running,
        triton.InferenceServerClient(running.grpc_address) as client,
    ):
        rows = [_input("x", np.ones((1024, 128), np.float32), "FP32")]
        with pytest.raises(InferenceServerException) as told:
            client.infer("model", rows, client_timeout=0.05)
        assert told.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        with pytest.raises(InferenceServerException, match="No answer within") as told:
            client.infer("model", rows, timeout=50_000)
        assert told.value.status() == "StatusCode.DEADLINE_EXCEEDED"


@pytest.mark.long
def test_a_message_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    with ServerThread(model=models.linear().path, grpc_port=0, max_body_mib=1) as running:
        with grpc.insecure_channel(running.grpc_address) as channel, pytest.raises(grpc.RpcError) as told:
            _infer(channel, _described(raw=b"\0" * (2 << 20)))
        assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_keys_open_what_they_were_made_for(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    mine = keys.create("mine", models=("a",))
    slow = keys.create("slow", rate_per_s=0.1)
    admin = keys.create("admin", scopes=("admin",))
    folder = bundle_folder(tmp_path / "models", a=models.linear(seed=1), b=models.linear(seed=2))
    with (
        ServerThread(models=folder, grpc_port=0, keys=keys.path) as running,
        triton.InferenceServerClient(running.grpc_address) as client,
    ):

        def ask(model: str, key: str | None) -> Any:
            headers = None if key is None else {"authorization": f"Bearer {key}"}
            return client.infer(model, [_input("x", ROW, "FP32")], headers=headers).as_numpy("y")

        assert client.is_server_live()
        assert ask("a", mine) is not None
        ask("b", slow)
        for model, key, status in (
            ("a", None, "UNAUTHENTICATED"),
            ("a", mine + "x", "UNAUTHENTICATED"),
            ("b", mine, "PERMISSION_DENIED"),
            ("b", slow, "RESOURCE_EXHAUSTED"),
        ):
            with pytest.raises(InferenceServerException) as told:
                ask(model, key)
            assert told.value.status() == f"StatusCode.{status}"
        with pytest.raises(InferenceServerException) as told:
            client.unload_model("a", headers={"authorization": f"Bearer {mine}"})
        assert told.value.status() == "StatusCode.PERMISSION_DENIED"
        client.unload_model("a", headers={"authorization": f"Bearer {admin}"})


def test_tls_and_certificates_of_clients(tmp_path: Path) -> None:
    ca, server_pair, client_pair = certificates(tmp_path)
    settings = {"tls_certificate": server_pair[0], "tls_key": server_pair[1], "tls_client_ca": ca}
    with ServerThread(model=models.linear().path, name="linear", grpc_port=0, **settings) as running:
        address = f"localhost:{running.server.grpc_port}"
        chain, key = client_pair
        known = grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), chain.read_bytes())
        with grpc.secure_channel(address, known) as channel:
            assert _infer(channel, _described(raw=ROW.tobytes())).raw_output_contents
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes())) as channel:
            with pytest.raises(grpc.RpcError) as told:
                _infer(channel, _described())
            assert told.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.long
def test_a_port_that_is_taken_is_said(server: ServerProcess) -> None:
    from modelserve.errors import ConfigError

    port = int(server.grpc_address.rsplit(":", 1)[1])
    with (
        pytest.raises(ConfigError, match="Choose another port"),
        ServerThread(model=models.linear().path, grpc_port=port),
    ):
        pass
