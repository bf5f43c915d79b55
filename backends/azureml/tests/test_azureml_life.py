"""A deployment's life on the rehearsed Azure, beyond what every backend promises."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import requests

from modelserve.backend import DeploymentSpec, Scale
from modelserve.deployment import Deployment
from modelserve.errors import OverloadedError, StartError
from modelserve.rehearsal import rehearse
from modelserve.session import Session
from modelserve.standin.load import Load
from modelserve.standin.registry import put_this_python
from modelserve.testing import models
from modelserve_azureml import AzureMLBackend
from modelserve_azureml.names import deployment_name, endpoint_name
from modelserve_azureml.rehearsal.cloud import REGISTRY_HOST, AzureRehearsal

SPEC = DeploymentSpec("digits")


def served(azure: AzureRehearsal, spec: DeploymentSpec = SPEC, **changes: Any) -> Deployment:
    backend = AzureMLBackend({**azure.options, **changes})
    return Deployment(backend.deploy(models.linear(), spec), backend)


def rows() -> Any:
    return models.linear().example()["x"]


def answer(seed: int = 0) -> Any:
    bundle = models.linear(seed=seed)
    return Session(bundle).run({"x": rows()})[bundle.signature.primary]


def outside(url: str) -> dict[str, Any]:
    """What programs beside a rehearsal would do with an address."""
    with httpx.Client() as client:
        proxies = sorted(str(pattern.pattern) for pattern in client._mounts)
    return {
        "environment": {name: text for name, text in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "httpx": proxies,
        "requests": requests.utils.get_environ_proxies(url),
        "verify": requests.Session().merge_environment_settings(url, {}, None, None, None)["verify"],
    }


@pytest.mark.long
def test_the_program_around_a_rehearsal_is_as_it_was(azure: AzureRehearsal, capfd: pytest.CaptureFixture[str]) -> None:
    url = "https://management.azure.com/"
    before = outside(url)
    with served(azure) as deployment:
        assert outside(url) == before
        np.testing.assert_array_equal(deployment.predict(rows()), answer())
        # Keys that are changed somewhere else are read again.
        azure.manager.endpoints.keys[endpoint_name(azure.workspace, "digits")]["primaryKey"] = "changed"
        np.testing.assert_array_equal(deployment.predict(rows()), answer())
        deployment.delete()
    assert outside(url) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.long
def test_a_program_that_never_heard_of_a_proxy_is_untouched_by_its_rehearsal() -> None:
    program = """
import json, os, sys, requests
before = dict(os.environ)
from modelserve_azureml import AzureMLBackend
from modelserve.rehearsal import rehearse
from modelserve.backend import DeploymentSpec
with AzureMLBackend(json.loads(sys.argv[1])).rehearsal() as rehearsal:
    rehearsal.backend.preflight(__import__("modelserve.testing.models").testing.models.linear(), DeploymentSpec("a"))
    assert rehearsal.faults.calls, "Nothing was asked."
changed = {name for name in {**before, **os.environ} if before.get(name) != os.environ.get(name)}
print(json.dumps([sorted(changed), requests.utils.get_environ_proxies("https://management.azure.com/")]))
"""
    clean = {name: text for name, text in os.environ.items() if "proxy" not in name.lower() and "CERT" not in name}
    options = {"subscription": "s", "resource_group": "g", "workspace": "w"}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(options)], env=clean, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], {}]
    assert done.stderr == ""


@pytest.mark.long
def test_microsofts_own_client_sees_and_changes_what_was_deployed(azure: AzureRehearsal) -> None:
    from azure.ai.ml import MLClient
    from azure.identity import ClientSecretCredential

    way = {"proxies": {"https": azure.proxy.url}, "connection_verify": str(azure.options["ca"])}
    who = [azure.options[name] for name in ("tenant", "client_id", "client_secret")]
    where = [azure.options[name] for name in ("subscription", "resource_group", "workspace")]
    client = MLClient(ClientSecretCredential(*who, **way), *where, show_progress=False, enable_telemetry=False, **way)
    deployment = served(azure)
    (endpoint,) = client.online_endpoints.list()
    assert endpoint.tags["modelserve-deployment"] == "digits"
    (version,) = client.online_deployments.list(endpoint.name)
    assert version.request_settings.request_timeout_ms == 90_000
    assert "downloaded model.onnx" in client.online_deployments.get_logs(
        version.name, endpoint.name, lines=50, container_type="storage-initializer"
    )
    keys = client.online_endpoints.get_keys(endpoint.name)
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    with httpx.Client(proxy=azure.proxy.url, verify=ssl.create_default_context(cafile=azure.options["ca"])) as http:
        asked = http.post(endpoint.scoring_uri, json=body, headers={"authorization": f"Bearer {keys.primary_key}"})
    assert asked.status_code == 200, asked.text
    version.instance_count = 2
    client.online_deployments.begin_create_or_update(version).result()
    assert deployment.status().scale == Scale.fixed(2)
    client.online_endpoints.begin_delete(endpoint.name).result()
    deployment.delete()
    assert azure.leftovers() == []


@pytest.mark.long
@pytest.mark.parametrize("auth", ["aml_token", "aad_token"])
def test_callers_may_show_tokens_instead_of_keys(azure: AzureRehearsal, auth: str) -> None:
    with served(azure, auth=auth) as deployment:
        np.testing.assert_array_equal(deployment.predict(rows()), answer())


@pytest.mark.long
def test_a_new_version_gets_copies_then_a_share_then_everything(azure: AzureRehearsal) -> None:
    first = served(azure)
    told: list[str] = []
    backend = AzureMLBackend({**azure.options, "mirror_percent": 50, "canary_percent": 50, "bake_s": 1.5})
    new = models.linear(seed=1)
    with Load(lambda: first.predict(rows())) as load:
        load.wait_for(5)
        backend.deploy(new, SPEC, on_progress=told.append)
        load.wait_for(5)
    assert load.failures == []
    assert azure.door.mirrored[deployment_name(new.digest)] > 0
    assert [line.split()[0] for line in told if "%" in line] == ["Mirroring", "Sending"]
    np.testing.assert_array_equal(first.predict(rows()), answer(seed=1))


@pytest.mark.long
def test_a_new_version_that_fails_requests_is_taken_back(azure: AzureRehearsal) -> None:
    first, new = served(azure), models.linear(seed=2)
    endpoint = endpoint_name(azure.workspace, SPEC.name)
    left = azure.leftovers()

    def failing(line: str) -> None:
        if line.startswith("Sending"):
            azure.door.count(endpoint, deployment_name(new.digest), 503, 50)

    backend = AzureMLBackend({**azure.options, "canary_percent": 10})
    with pytest.raises(StartError, match="the old one gets all of them again"):
        backend.deploy(new, SPEC, on_progress=failing)
    np.testing.assert_array_equal(first.predict(rows()), answer())
    assert azure.leftovers() == left


@pytest.mark.long
def test_an_autoscale_setting_goes_with_its_version_and_with_the_endpoint(azure: AzureRehearsal) -> None:
    scale = Scale(1, 2, target_cpu=0.7)
    deployment = served(azure, DeploymentSpec("digits", scale))
    assert deployment.status().scale == scale
    deployment.update(models.linear(seed=1))
    assert deployment.status().scale == scale
    assert sum("autoscalesettings" in one for one in azure.leftovers()) == 1
    deployment.scale(1)
    assert not any("autoscalesettings" in one for one in azure.leftovers())


@pytest.mark.long
def test_a_door_that_is_full_says_so_and_is_open_again_afterwards(azure: AzureRehearsal) -> None:
    backend = AzureMLBackend({**azure.options, "max_concurrent_requests": 1})
    deployment = Deployment(backend.deploy(models.slow(2_000), SPEC), backend)
    some = np.ones((256, 128), np.float32)

    def ask(_number: int) -> str:
        try:
            return str(deployment.predict(some).shape)
        except OverloadedError:
            return "full"

    with ThreadPoolExecutor(12) as threads:
        outcomes = Counter(threads.map(ask, range(24)))
    assert set(outcomes) == {"(256, 128)", "full"}, outcomes
    assert deployment.predict(some[:1]).shape == (1, 128)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_application_runs_unchanged_on_this_machine_and_at_azure(azure: AzureRehearsal, tmp_path: Path) -> None:
    application = Path(__file__).parents[3] / "examples" / "anywhere.py"
    told = {name: str(azure.options[name]) for name in azure.reached_by}
    at_azure = "\n".join(f"{name} = {json.dumps(text)}" for name, text in told.items())
    outputs = []
    for place, target in (("here", 'backend = "local"'), ("azure", f'backend = "azureml"\nworkers = 1\n{at_azure}')):
        folder = tmp_path / place
        folder.mkdir()
        (folder / "modelserve.toml").write_text(f"[targets.prod]\n{target}\n")
        done = subprocess.run(
            [sys.executable, str(application)], cwd=folder, capture_output=True, text=True, timeout=110
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert "replicas 2" in outputs[0]


@pytest.mark.long
def test_a_rehearsal_of_a_whole_life_passes(options: dict[str, Any], tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path / "modelserve-home"))
    report = rehearse(AzureMLBackend(options), models.linear())
    assert report.is_passed, report.to_json()


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="The image is put on this machine's Python.")
def test_the_image_is_built_and_pushed_in_pieces_to_the_workspaces_registry_once(azure: AzureRehearsal) -> None:
    inside = azure.registry.inside
    put_this_python(inside, "base/python", "here")
    told: list[str] = []
    backend = AzureMLBackend({**azure.options, "image": "", "base_image": f"{REGISTRY_HOST}/base/python:here"})
    deployment = Deployment(backend.deploy(models.linear(), SPEC, on_progress=told.append), backend)
    np.testing.assert_array_equal(deployment.predict(rows()), answer())
    assert any(line.startswith("Pushing part") for line in told)
    sizes = [asked.body_bytes for asked in inside.asked if asked.method == "PATCH"]
    assert len(sizes) > 1
    assert max(sizes) == 4 << 20
    environments = azure.manager.resources.below(
        f"{azure.workspace.environment(endpoint_name(azure.workspace, SPEC.name))}/versions"
    )
    pushed = environments[0]["properties"]["image"]
    assert pushed.startswith(f"{REGISTRY_HOST}/modelserve@sha256:")
    assert azure.registry.has(pushed)
    assert not azure.registry.has(f"{REGISTRY_HOST}/modelserve@sha256:{'0' * 64}")
    azure.faults.calls.clear()
    backend.deploy(models.linear(), DeploymentSpec("again")).close()
    assert "Registry.HEAD" in azure.faults.calls or "Registry.GET" in azure.faults.calls
    assert not {"Registry.PATCH", "Registry.PUT"} & set(azure.faults.calls)
    assert azure.proxy.refused == []
