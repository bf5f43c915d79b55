"""What goes over the wire for a prediction, and what comes back as an error."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from google.cloud import aiplatform_v1 as v1

from modelserve import image
from modelserve.backend import Request
from modelserve.backend.oip import SIZED
from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    DeploymentClosedError,
    InputError,
    ModelRunError,
    ModelServeError,
    NotReadyError,
    OverloadedError,
)
from modelserve.standin.loopback import Answered, Exchange, LoopbackServer, answering
from modelserve.wire import encode_reply, encode_request
from modelserve_vertex.calls import Calls
from modelserve_vertex.google import Google
from modelserve_vertex.images import RuntimeImage
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.refusal import refusal
from modelserve_vertex.way import Way, way_to

OPTIONS = VertexOptions(project="demo", region="europe-west4")
NAME = "projects/demo/locations/europe-west4/endpoints/churn"
REPLY = encode_reply({"y": np.ones(2, np.float32)})


class Token:
    """Credentials that were never renewed, and count how often they are."""

    def __init__(self) -> None:
        self.renewed = 0

    @property
    def valid(self) -> bool:
        return self.renewed > 0

    def refresh(self, _request: object) -> None:
        self.renewed += 1

    def apply(self, headers: dict[str, str]) -> None:
        headers["authorization"] = f"Bearer token-{self.renewed}"


@pytest.fixture
def seen() -> list[Exchange]:
    return []


@pytest.fixture
def server(seen: list[Exchange]) -> Iterator[LoopbackServer]:
    def answer(exchange: Exchange) -> Answered:
        seen.append(exchange)
        return Answered(200, REPLY.join(), {"content-type": f"{SIZED};json-header-size={len(REPLY.header)}"})

    with LoopbackServer(answering(answer)) as running:
        yield running


def asked(calls: Calls) -> np.ndarray:
    message = encode_request({"x": np.arange(2, dtype=np.float32)})
    reply = calls.submit(Request(message, 2, 10.0), "y").result()
    return np.frombuffer(reply.body, np.float32)


def test_a_prediction_carries_the_token_the_hosts_name_and_the_body_as_it_is(
    server: LoopbackServer, seen: list[Exchange]
) -> None:
    token = Token()
    calls = Calls(Way(server.url, f"/v1/{NAME}:rawPredict", "churn.example"), token, OPTIONS)
    assert asked(calls).tolist() == [1, 1]
    asked(calls)
    calls.close()
    first, second = seen
    assert (first.path, first.headers["host"]) == (f"/v1/{NAME}:rawPredict", "churn.example")
    assert token.renewed == 1
    assert {one.headers["authorization"] for one in (first, second)} == {"Bearer token-1"}
    media_type, _, length = first.headers["content-type"].partition(";json-header-size=")
    assert media_type == SIZED
    assert json.loads(first.body[: int(length)])["inputs"][0]["name"] == "x"
    assert first.body[int(length) :] == np.arange(2, dtype=np.float32).tobytes()
    with pytest.raises(DeploymentClosedError):
        asked(calls)


def test_a_peered_network_is_asked_without_a_token(server: LoopbackServer, seen: list[Exchange]) -> None:
    calls = Calls(Way(server.url, "/v1/models/1:predict", has_token=False), Token(), OPTIONS)
    asked(calls)
    calls.close()
    assert "authorization" not in seen[0].headers


REGION = "https://europe-west4-aiplatform.googleapis.com"
PATH = f"/v1/{NAME}:rawPredict"
DNS = "churn.europe-west4-1.prediction.vertexai.goog"
OWN = {"dedicated_endpoint_enabled": True}
PSC = {"private_service_connect_config": {"enable_private_service_connect": True}}
PRIVATE = {
    "network": "projects/1/global/networks/n",
    "deployed_models": [{"id": "1", "private_endpoints": {"predict_http_uri": "http://1.example/v1/models/1:predict"}}],
}


@pytest.mark.parametrize(
    ("fields", "predict_address", "wanted"),
    [
        ({}, "", Way(REGION, PATH)),
        ({**OWN, "dedicated_endpoint_dns": DNS}, "", Way(f"https://{DNS}", PATH)),
        # The library's comment shows the scheme, its code adds it.
        ({**OWN, "dedicated_endpoint_dns": f"https://{DNS}"}, "", Way(f"https://{DNS}", PATH)),
        (PSC, "https://10.0.0.5", Way("https://10.0.0.5", PATH)),
        (PRIVATE, "", Way("http://1.example", "/v1/models/1:predict", has_token=False)),
    ],
    ids=["shared", "dedicated", "dedicated, with a scheme", "psc", "private"],
)  # fmt: skip
def test_each_kind_is_asked_its_own_way(fields: dict[str, object], predict_address: str, wanted: Way) -> None:
    assert way_to(v1.Endpoint(name=NAME, **fields), REGION, predict_address) == wanted


def test_a_way_that_is_not_known_is_told_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="predict_address"):
        way_to(v1.Endpoint(name=NAME, **PSC), REGION, "")
    with pytest.raises(NotReadyError, match="nothing is deployed"):
        way_to(v1.Endpoint(name=NAME, network=PRIVATE["network"]), REGION, "")


def google(status: int, name: str, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": status, "status": name, "message": message}})


def ours(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": "said", "code": code}, headers=headers)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (google(400, "FAILED_PRECONDITION", "Endpoint x doesn't have traffic_split."), NotReadyError),
        (google(400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 1500000 bytes."), InputError),
        (google(400, "INVALID_ARGUMENT", "Response payload size exceeds the limit: 10000000 bytes."), InputError),
        (google(400, "FAILED_PRECONDITION", "Something else."), BackendError),
        (google(403, "PERMISSION_DENIED", "No."), AccessDeniedError),
        (google(429, "RESOURCE_EXHAUSTED", "Too many."), OverloadedError),
        (google(503, "UNAVAILABLE", "Broke off."), NotReadyError),
        (ours(422, "model_run"), ModelRunError),
        (ours(429, "overloaded", **{"retry-after": "7"}), OverloadedError),
        (httpx.Response(502, text="<html>"), BackendError),
    ],
)
def test_an_answer_other_than_success_is_one_of_ours(answer: httpx.Response, kind: type[ModelServeError]) -> None:
    error = refusal(answer, "POST x")
    assert type(error) is kind
    assert str(error)
    if answer.headers.get("retry-after"):
        assert isinstance(error, OverloadedError)
        assert error.retry_after_s == 7


def test_an_address_without_encryption_is_asked_as_nobody() -> None:
    rehearsed = Google(OPTIONS.model_copy(update={"api_address": "http://127.0.0.1:1"}))
    assert rehearsed.is_rehearsed
    assert rehearsed.credentials.token is None
    assert rehearsed.address("storage") == "http://127.0.0.1:1"
    assert Google(OPTIONS).api_address == REGION


def test_without_credentials_it_is_told_how_to_get_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "no-such-file.json")
    with pytest.raises(AccessDeniedError, match="credentials"):
        _ = Google(OPTIONS).credentials


@pytest.mark.parametrize(
    ("registry", "wanted"),
    [("europe-west4-docker.pkg.dev", image.Password("oauth2accesstoken", "secret")), ("docker.io", None)],
)
def test_only_artifact_registry_is_shown_our_token(
    registry: str, wanted: image.Login | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Valid:
        valid, token = True, "secret"

    target = Google(OPTIONS)
    monkeypatch.setattr(Google, "credentials", property(lambda _self: Valid()))
    found = RuntimeImage(target, OPTIONS)
    assert found.login(registry) == wanted
    assert found.repository == "europe-west4-docker.pkg.dev/demo/modelserve/modelserve"
    assert found.named().startswith(f"{found.repository}:")
