"""The image itself: built of real wheels on this machine's Python, pulled, unpacked, and started as a cloud does it."""

from __future__ import annotations

import platform
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from modelserve import image
from modelserve.image.packages import pinned
from modelserve.image.wheels import wheels_layer
from modelserve.session import Session
from modelserve.standin.registry import RegistryStandIn, put_this_python
from modelserve.testing import models
from modelserve.testing.image_root import ImageRoot
from modelserve.testing.serving import ServerProcess

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="a Linux image is started"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture
def registry(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryStandIn]:
    monkeypatch.setenv("MODELSERVE_HOME", str(home))
    with RegistryStandIn() as found:
        put_this_python(found, "library/python", "3")
        yield found


@pytest.fixture
def recipe(registry: RegistryStandIn) -> image.Recipe:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    base = image.Reference(registry.address, "library/python", "3")
    return image.Recipe(platform=image.Platform(architecture), base=base)


def test_the_pushed_image_starts_and_answers(registry: RegistryStandIn, recipe: image.Recipe, tmp_path: Path) -> None:
    reference = image.ensure(f"{registry.address}/team/modelserve", recipe, credentials=image.anonymous)
    root, bundle = ImageRoot(reference, tmp_path / "root", recipe.platform.architecture), models.linear()
    shutil.copytree(bundle.path, root.folder / "opt" / "ml" / "model")
    environment = {"MODELSERVE_SERVER_HOST": "127.0.0.1", "SAGEMAKER_BIND_TO_PORT": free_port()}
    command = root.command(environment, *root.settings["Entrypoint"], "serve")
    with ServerProcess(command=command) as process:
        assert httpx.get(f"{process.url}/ping").status_code == 200
        rows = bundle.example()["x"]
        answer = httpx.post(f"{process.url}/invocations", json={"instances": rows.tolist()})
        assert answer.status_code == 200, answer.text
        wanted = Session(bundle).run({"x": rows})[bundle.signature.primary]
        np.testing.assert_array_equal(np.array(answer.json()["predictions"], wanted.dtype), wanted)


def test_the_packages_of_another_processor_have_a_digest_that_stays(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = image.Platform("arm64" if platform.machine() == "x86_64" else "amd64")
    pins = pinned(("container",), there, "3.12")
    monkeypatch.setenv("MODELSERVE_HOME", str(home))
    first = wheels_layer(pins, there, "3.12").blob
    monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path / "second"))
    second = wheels_layer(pins, there, "3.12").blob
    assert second.bring() != first.bring()
    assert second.digest == first.digest
    with tarfile.open(first.bring()) as tar:
        native = [name for name in tar.getnames() if name.endswith("-linux-gnu.so")]
    assert any("onnxruntime" in name or "numpy" in name for name in native)
    assert not [name for name in native if there.machine not in name]


def free_port() -> str:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
