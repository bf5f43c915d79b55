"""Tokens of an identity provider: the right ones open what they say, all others nothing."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from modelserve.errors import ConfigError
from modelserve.runtime.server.access import tokens as tokens_module
from modelserve.runtime.server.access.tokens import Tokens
from modelserve.testing import models
from modelserve.testing.serving import ServerThread

ISSUER, AUDIENCE = "https://login.example", "models"


class Provider:
    """An identity provider that publishes its keys."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.published = {"keys": [self._described("one", self.private)]}
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = json.dumps(provider.published).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def token(self, *, key: Any = None, kid: str = "one", algorithm: str = "ES256", **changed: Any) -> str:
        now = time.time()
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "scope": "modelserve:predict openid"}
        claims = {name: value for name, value in {**claims, **changed}.items() if value is not None}
        return jwt.encode(claims, key or self.private, algorithm=algorithm, headers={"kid": kid})

    def rotate(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.published = {"keys": [self._described("two", self.private)]}

    @staticmethod
    def _described(kid: str, key: Any) -> dict[str, str]:
        numbers = key.public_key().public_numbers()

        def text(number: int) -> str:
            return base64.urlsafe_b64encode(number.to_bytes(32, "big")).decode().rstrip("=")

        return {"kty": "EC", "crv": "P-256", "use": "sig", "kid": kid, "x": text(numbers.x), "y": text(numbers.y)}


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture
def server(provider: Provider) -> Iterator[ServerThread]:
    oidc = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks_url": provider.url}
    with ServerThread(model=models.linear().path, **oidc) as running:
        yield running


def ask(server: ServerThread, token: str, path: str = "/predict") -> int:
    body = b'{"instances":[[1,2,3,4]]}'
    request = urllib.request.Request(server.url + path, body, {"authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_token_opens_what_its_scope_says(server: ServerThread, provider: Provider) -> None:
    unload = "/v2/repository/models/model/load"
    assert ask(server, provider.token()) == 200
    assert ask(server, provider.token(), unload) == 403
    assert ask(server, provider.token(scope="openid")) == 403
    assert ask(server, provider.token(scope=["modelserve:metrics"])) == 403


def test_all_others_open_nothing(server: ServerThread, provider: Provider) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    bad = [
        provider.token(exp=time.time() - 600),
        provider.token(exp=None),
        provider.token(sub=None),
        provider.token(iss="https://evil.example"),
        provider.token(aud="others"),
        provider.token(nbf=time.time() + 600),
        provider.token(key=stranger),
        provider.token(kid="unknown"),
        provider.token(key=rsa.generate_private_key(65537, 2048), algorithm="RS256"),
        jwt.encode({"sub": "ann"}, "a" * 64, algorithm="HS256", headers={"kid": "one"}),
        ".".join([*provider.token().split(".")[:2], ""]),
        _unsigned(provider.token()),
        "a.b.c",
        "..",
        "",
    ]
    assert [ask(server, token) for token in bad] == [401] * len(bad)


def _unsigned(token: str) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"none","kid":"one"}').decode().rstrip("=")
    return ".".join([header, token.split(".")[1], ""])


def test_new_keys_of_the_provider_are_learned(
    server: ServerThread, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "_RETRY_S", 0.0)
    provider.rotate()
    end = time.monotonic() + 20
    while ask(server, provider.token(kid="two")) != 200:
        assert time.monotonic() < end


@pytest.mark.parametrize(
    "given",
    [
        {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": ""},
        {"issuer": ISSUER, "audience": "", "jwks_url": "https://x"},
        {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": "http://login.example/jwks"},
        {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": "http://127.0.0.1.evil.example/jwks"},
    ],
)
def test_half_a_provider_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Tokens(**given)
