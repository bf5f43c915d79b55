"""The server's description of itself is one, and its examples are answered."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from openapi_spec_validator import validate

from modelserve.testing import models
from modelserve.testing.serving import ServerThread, bundle_folder


def call(url: str, content: Any = None) -> Any:
    body = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        return json.loads(answer.read())


def test_it_is_valid_and_every_example_is_answered(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path, a=models.mlp(), b=models.two_inputs(), c=models.text(), d=models.picky())
    with ServerThread(models=folder) as server:
        said = call(f"{server.url}/openapi.json")
        validate(said)
        assert said["openapi"] == "3.1.0"
        for name in "abcd":
            body = said["paths"][f"/v2/models/{name}/infer"]["post"]["requestBody"]["content"]["application/json"]
            assert call(f"{server.url}/v2/models/{name}/infer", body["example"])["outputs"]
        paths = {(method.upper(), path) for path, methods in said["paths"].items() for method in methods}
        own = {(route.method, route.pattern) for route in server.server.routes}
        assert own <= paths
