"""The runtime's image on its way to Vertex AI: built, pushed to Artifact Registry, pulled and started as there."""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from modelserve import image
from modelserve.backend import DeploymentSpec
from modelserve.errors import AccessDeniedError, BackendError, ImageError
from modelserve.session import Session
from modelserve.standin.registry import Door, RegistryStandIn, access, put_this_python
from modelserve.testing import models
from modelserve.testing.image_root import ImageRoot
from modelserve.testing.serving import ServerProcess
from modelserve_vertex.google import Google
from modelserve_vertex.images import RuntimeImage
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.rehearsal import VertexRehearsal

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="a Linux image is started"),
]

OPTIONS = VertexOptions(project="demo", region="europe-west4")
HOST = "europe-west4-docker.pkg.dev"
REPOSITORY = "demo/modelserve/modelserve"
TOKEN = "ya29.a-token"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


class Token:
    """Credentials that have a token once they were asked for one."""

    valid = False
    token = ""

    def refresh(self, _request: object) -> None:
        self.valid, self.token = True, TOKEN


def runtime_image() -> RuntimeImage:
    """As of a target whose credentials are a token that is about to be fetched."""
    google = Google(OPTIONS)
    vars(google)["_found"] = (Token(), None)
    return RuntimeImage(google, OPTIONS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture
def registry(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryStandIn]:
    """Artifact Registry: whole blobs only, a token for the one user that it knows, and one repository.

    Its name leads to this machine, as does the base's, which is this machine's Python.
    """
    monkeypatch.setenv("MODELSERVE_HOME", str(home))
    monkeypatch.setattr(access, "USER", "oauth2accesstoken")
    monkeypatch.setattr(access, "PASSWORD", TOKEN)
    everywhere = image.Reference.url.fget  # type: ignore[attr-defined]  # a property
    with (
        RegistryStandIn() as bases,
        RegistryStandIn(door=Door.TOKEN, chunks=False, repositories={REPOSITORY}) as found,
    ):
        put_this_python(bases, "library/python", "3")
        base = image.Reference(bases.address, "library/python", "3")
        recipe = image.Recipe(platform=image.Platform(ARCHITECTURE), base=base)
        for room in ("modelserve.image.publish", "modelserve.image.assembly", "modelserve.image"):
            monkeypatch.setattr(f"{room}.Recipe", lambda: recipe, raising=False)
        here = property(lambda one: found.url if one.registry == HOST else everywhere(one))
        monkeypatch.setattr(image.Reference, "url", here)
        yield found


def test_the_first_deploy_builds_and_pushes_the_image_and_vertex_ai_starts_it(
    registry: RegistryStandIn, tmp_path: Path
) -> None:
    told: list[str] = []
    runtime = runtime_image()
    assert runtime.found() is None
    reference = runtime.ensured(told.append)
    assert reference.startswith(f"{HOST}/{REPOSITORY}@sha256:")
    assert any("Pushing" in line for line in told)
    assert {asked.method for asked in registry.asked if "/blobs/uploads/" in asked.path} == {"POST", "PUT"}

    before = len(registry.asked)
    assert runtime.ensured(told.append) == runtime.found() == reference
    assert {asked.method for asked in registry.asked[before:]} <= {"HEAD", "GET"}

    options = OPTIONS.model_copy(update={"image": reference, "workers": 1})
    with VertexRehearsal(options, images={reference}) as rehearsal:
        bundle = models.linear()
        rehearsal.backend.deploy(bundle, DeploymentSpec("churn")).close()
        (model,) = rehearsal.cloud.models.all
        root = ImageRoot(image.Reference.parse(reference), tmp_path / "root", ARCHITECTURE, credentials=runtime.login)
        environment = {
            **{one.name: one.value for one in model.container_spec.env},
            "AIP_HTTP_PORT": free_port(),
            "AIP_STORAGE_URI": rehearsal.cloud.models.storage_uri(model),
            "AIP_PREDICT_ROUTE": model.container_spec.predict_route,
            "AIP_HEALTH_ROUTE": model.container_spec.health_route,
            "STORAGE_EMULATOR_HOST": rehearsal.url,
            "MODELSERVE_SERVER_HOST": "127.0.0.1",
        }
        with ServerProcess(command=root.command(environment, *root.settings["Entrypoint"])) as process:
            rows = bundle.example()["x"]
            answer = httpx.post(f"{process.url}/predict", json={"instances": rows.tolist()})
        wanted = Session(bundle).run({"x": rows})["y"]
        np.testing.assert_array_equal(np.array(answer.json()["predictions"], wanted.dtype), wanted)


def test_an_image_that_is_not_there_is_refused_when_the_model_is_registered() -> None:
    options = VertexOptions(project="demo", region="europe-west4", image=f"{HOST}/{REPOSITORY}:gone")
    with VertexRehearsal(options, images=set()) as rehearsal, pytest.raises(BackendError, match="does not exist"):
        rehearsal.backend.deploy(models.linear(), DeploymentSpec("churn"))


def test_a_repository_that_is_missing_is_told_with_the_command_that_makes_it(registry: RegistryStandIn) -> None:
    registry.repositories = set()
    with pytest.raises(ImageError, match=r"no repository.*gcloud artifacts repositories create modelserve"):
        runtime_image().ensured(lambda _line: None)


def test_a_token_that_is_not_taken_is_told(registry: RegistryStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PASSWORD", "another")
    with pytest.raises(AccessDeniedError):
        runtime_image().found()
    assert [asked.path for asked in registry.asked if asked.path.startswith("/token")]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
