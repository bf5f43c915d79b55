"""What each cloud does with a container, done here: started by its environment alone, asked on its paths."""

from __future__ import annotations

import json
import shutil
import socket
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from modelserve.backend.oip import DESCRIBE, sized_reply, sized_request
from modelserve.bundle.manifest import signature_from_json
from modelserve.errors import BackendError, ConfigError
from modelserve.runtime.fetch import fetch
from modelserve.runtime.server.contracts import detect
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.serving import ServerProcess
from modelserve.wire import decode, encode_request, reply_layout

ROW = b'{"instances":[[1,2,3,4]]}'


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def ask(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    given = {"content-type": "application/json", **(headers or {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, given), timeout=30) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


#: Here as there only the cloud's own door reaches the container; in these tests it listens on loopback all the same.
LOOPBACK = {"MODELSERVE_SERVER_HOST": "127.0.0.1"}


def closed(url: str) -> list[int]:
    """What everything beside the contract answers to somebody without a key."""
    return [
        ask(f"{url}/v2/repository/models/model/unload", b"{}"),
        ask(f"{url}/v2/models/model/infer", b"{}"),
        ask(f"{url}/v2/models/model/stats"),
    ]


def test_sagemaker_says_serve_and_asks_ping_and_invocations(tmp_path: Path) -> None:
    shutil.copytree(models.linear().path, tmp_path / "model")
    port = free_port()
    environment = {"SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_BIND_TO_PORT": port, "MODELSERVE_SERVER_PORT": ""}
    with ServerProcess("serve", environment={**environment, "MODELSERVE_SERVER_HOST": "0.0.0.0"}) as process:
        url = f"http://127.0.0.1:{port}"
        assert process.wait_for("Listening on")["message"].endswith(f"0.0.0.0:{port}")
        assert ask(f"{url}/ping") == 200
        assert ask(f"{url}/invocations", ROW, {"X-Amzn-SageMaker-Custom-Attributes": "a=b"}) == 200
        assert ask(f"{url}/execution-parameters") == 200
        assert closed(url) == [401] * 3


def test_vertex_says_everything_by_variables_and_has_the_model_fetched(tmp_path: Path) -> None:
    shutil.copytree(models.linear().path, tmp_path / "stored")
    port = free_port()
    environment = {
        "AIP_HTTP_PORT": port,
        "AIP_HEALTH_ROUTE": "/v1/endpoints/7/deployedModels/8",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/7/deployedModels/8:predict",
        "AIP_STORAGE_URI": (tmp_path / "stored").as_uri(),
        "MODELSERVE_SERVER_PORT": "",
        "TMPDIR": str(tmp_path),
    }
    with ServerProcess(environment=environment):
        url = f"http://127.0.0.1:{port}"
        assert ask(url + environment["AIP_HEALTH_ROUTE"]) == 200
        assert ask(url + environment["AIP_PREDICT_ROUTE"], ROW) == 200
        assert closed(url) == [401] * 3
    assert [path.name for path in tmp_path.iterdir() if "modelserve" in path.name] == []


def test_azure_mounts_the_uploaded_folder_under_its_own_name(tmp_path: Path) -> None:
    shutil.copytree(models.linear().path, tmp_path / "models" / "digits" / "1" / "upload")
    environment = {"AZUREML_MODEL_DIR": str(tmp_path / "models" / "digits" / "1"), **LOOPBACK}
    with ServerProcess(environment=environment) as process:
        assert [ask(f"{process.url}{path}") for path in ("/", "/live", "/ready")] == [200] * 3
        assert ask(f"{process.url}/score", ROW) == 200


@pytest.mark.long
def test_a_request_keeps_the_name_that_its_cloud_gave_it(tmp_path: Path) -> None:
    shutil.copytree(models.linear().path, tmp_path / "m")
    with ServerProcess(environment={"AZUREML_MODEL_DIR": str(tmp_path / "m"), **LOOPBACK}) as process:
        request = urllib.request.Request(f"{process.url}/score", ROW, {"x-ms-client-request-id": "mine-7"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.headers["x-request-id"] == "mine-7"


@pytest.mark.parametrize(
    ("environment", "arguments", "name"),
    [
        ({}, [], None),
        ({}, ["serve"], "sagemaker"),
        ({"AIP_HTTP_PORT": "8080"}, [], "vertex"),
        ({"AZUREML_MODEL_DIR": "/m"}, [], "azureml"),
        ({"MODELSERVE_CONTRACT": "azureml", "AIP_HTTP_PORT": "8080"}, ["serve"], "azureml"),
        ({"MODELSERVE_CONTRACT": "none"}, ["serve"], None),
    ],
)
def test_a_cloud_is_known_by_what_it_sets(environment: dict[str, str], arguments: list[str], name: str | None) -> None:
    found = detect(environment, arguments)
    assert (found.name if found else None) == name


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="AIP_HTTP_PORT"):
        detect({"AIP_HTTP_PORT": "99999"})


def test_fetching_is_all_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackendError, match="nothing at"):
        fetch(str(tmp_path / "empty"), tmp_path / "into")
    with pytest.raises(ConfigError, match="s4"):
        fetch("s4://bucket/x", tmp_path / "into")
    with pytest.raises(ConfigError, match="not a folder"):
        fetch(str(tmp_path / "absent"), tmp_path / "into")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "work"]


def test_a_container_says_what_its_model_takes_where_it_is_asked_for_answers(tmp_path: Path) -> None:
    bundle = models.two_inputs()
    shutil.copytree(bundle.path, tmp_path / "m")
    with ServerProcess(environment={"AZUREML_MODEL_DIR": str(tmp_path / "m"), **LOOPBACK}) as process:
        request = urllib.request.Request(f"{process.url}/score", b"{}", {"content-type": DESCRIBE})
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = json.load(answer)["parameters"]
    assert signature_from_json(said["signature"]) == bundle.signature
    assert said["digest"] == bundle.digest


def test_a_request_whose_only_header_is_its_type_is_answered_in_kind(tmp_path: Path) -> None:
    bundle = models.linear()
    shutil.copytree(bundle.path, tmp_path / "m")
    media_type, content = sized_request(encode_request(bundle.example()), bundle.signature.primary)
    with ServerProcess(environment={"AZUREML_MODEL_DIR": str(tmp_path / "m"), **LOOPBACK}) as process:
        request = urllib.request.Request(f"{process.url}/score", content, {"content-type": media_type})
        with urllib.request.urlopen(request, timeout=30) as answer:
            reply = sized_reply(answer.headers["content-type"], answer.read())
    wanted = Session(bundle).run(bundle.example())
    for name, array in decode(reply_layout(reply.header), reply.body).items():
        np.testing.assert_array_equal(array, wanted[name])
