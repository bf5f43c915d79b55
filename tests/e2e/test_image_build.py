"""The whole way of an image: a base of a few bytes, wheels that are made here, and whoever reads what came of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserve import image
from modelserve.errors import ImageError, RegistryError
from modelserve.image.assembly import Image
from modelserve.image.blob import digest_of
from modelserve.image.layer import Entry, Layer, keep
from modelserve.image.packages import Pin
from modelserve.image.session import Session
from modelserve.image.upload import Outcome
from modelserve.standin.registry import RegistryStandIn, put_image

pytestmark = pytest.mark.long

EXISTS, MOUNTED, UPLOADED = Outcome.EXISTS, Outcome.MOUNTED, Outcome.UPLOADED


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "waits_s", (0.0, 0.0, 0.0))


@pytest.fixture
def registry() -> Iterator[RegistryStandIn]:
    with RegistryStandIn() as found:
        yield found


def wheel(folder: Path, name: str, version: str, tags: str, files: dict[str, str]) -> None:
    with zipfile.ZipFile(folder / f"{name}-{version}-{tags}.whl", "w") as archive:
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        for path, content in files.items():
            archive.writestr(path, content)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Pin]:
    """Packages that pip finds in a folder, and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for machine in ("x86_64", "aarch64"):
        files = {
            "onnxruntime/core.so": machine,
            "onnxruntime-1.0.data/platlib/moved.py": "",
            "onnxruntime/__init__.py": "",
        }
        wheel(folder, "onnxruntime", "1.0", f"cp312-cp312-manylinux_2_28_{machine}", files)
    wheel(folder, "plain", "2.0", "py3-none-any", {"plain.py": "", "plain-2.0.data/scripts/plain": "#!python"})
    for name in ("PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_" + "FIND" + "_LINKS", str(folder))
    pins = [Pin("onnxruntime", "1.0"), Pin("plain", "2.0")]
    monkeypatch.setattr("modelserve.image.assembly.pinned", lambda *_: pins)
    return pins


def tiny_layer(name: str) -> Layer:
    return keep(name, lambda write: write([Entry(f"bin/{name}", True, name.encode)]))


@pytest.fixture
def base(registry: RegistryStandIn) -> image.Reference:
    layers = {architecture: (tiny_layer(architecture), tiny_layer("both")) for architecture in ("amd64", "arm64")}
    put_image(registry, "library/python", "3.12", layers, environment=["PYTHON_VERSION=3.12.4", "PATH=/bin"])
    return image.Reference(registry.address, "library/python", "3.12")


@pytest.fixture
def recipe(base: image.Reference, wheels: list[Pin]) -> image.Recipe:
    return image.Recipe(base=base)


def names(found: Image, number: int) -> list[str]:
    import tarfile

    with tarfile.open(found.layers[number].bring()) as tar:
        return [member.name for member in tar.getmembers() if member.isfile()]


def test_the_same_recipe_gives_the_same_digest_from_nothing(recipe: image.Recipe, tmp_path: Path) -> None:
    first = image.build(recipe, credentials=image.anonymous)
    shutil.rmtree(tmp_path / "home" / "images")
    second = image.build(recipe, credentials=image.anonymous)
    assert (second.digest, second.tag) == (first.digest, first.tag)
    assert image.tag_of(recipe, credentials=image.anonymous) == first.tag


def test_an_image_is_base_packages_and_product(recipe: image.Recipe) -> None:
    found = image.build(recipe, credentials=image.anonymous)
    site = "usr/local/lib/modelserve"
    assert [names(found, 0), names(found, 1)] == [["bin/amd64"], ["bin/both"]]
    packages = names(found, 2)
    assert {f"{site}/onnxruntime/core.so", f"{site}/moved.py", f"{site}/plain.py"} <= set(packages)
    assert not [name for name in packages if "scripts" in name or ".data/" in name]
    assert f"{site}/modelserve/runtime/__main__.py" in names(found, 3)

    config = json.loads(found.config.bring().read_bytes())
    assert config["config"]["Entrypoint"] == ["python", "-m", "modelserve.runtime"]
    assert "Cmd" not in config["config"]
    assert config["config"]["ExposedPorts"] == {"8080/tcp": {}, "5001/tcp": {}, "8000/tcp": {}}
    assert {"PATH=/bin", f"PYTHONPATH=/{site}"} <= set(config["config"]["Env"])
    assert config["config"]["Labels"]["modelserve.onnxruntime"] == "1.0"
    assert len(config["rootfs"]["diff_ids"]) == len(config["history"]) == 4


def test_another_processor_gets_its_own_base_and_wheels(recipe: image.Recipe, base: image.Reference) -> None:
    import tarfile

    here = image.build(recipe, credentials=image.anonymous)
    there = image.build(image.Recipe(base=base, platform=image.Platform("arm64")), credentials=image.anonymous)
    assert there.digest != here.digest
    assert "-arm64-" in there.tag
    assert names(there, 0) == ["bin/arm64"]
    with tarfile.open(there.layers[2].bring()) as tar:
        core = tar.extractfile("usr/local/lib/modelserve/onnxruntime/core.so")
        assert core is not None
        assert core.read() == b"aarch64"


def test_an_image_that_is_there_is_found_and_not_made_again(
    registry: RegistryStandIn, recipe: image.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, said = f"{registry.address}/team/modelserve", []
    assert image.find(place, recipe, credentials=image.anonymous) is None
    first = image.ensure(place, recipe, credentials=image.anonymous, on_progress=said.append)
    assert any("Pushing part 1 of 5" in line for line in said)
    monkeypatch.setattr("modelserve.image.publish.build", None)
    assert image.ensure(place, recipe, credentials=image.anonymous) == first
    assert image.find(place, recipe, credentials=image.anonymous) == first


def test_packages_that_have_no_wheel_there_are_named(recipe: image.Recipe, wheels: list[Pin]) -> None:
    wheels.append(Pin("nowhere", "1.0"))
    with pytest.raises(ImageError, match=r"linux/amd64, Python 3.12.*nowhere"):
        image.build(recipe, credentials=image.anonymous)


def test_a_base_that_does_not_fit_is_refused(registry: RegistryStandIn, wheels: list[Pin]) -> None:
    put_image(registry, "library/only", "1", {"amd64": (tiny_layer("amd64"),)})
    base = image.Reference(registry.address, "library/only", "1")
    with pytest.raises(RegistryError, match="not made for linux/arm64"):
        image.build(image.Recipe(base=base, platform=image.Platform("arm64")), credentials=image.anonymous)
    with pytest.raises(ImageError, match="which Python it has"):
        image.build(image.Recipe(base=base), credentials=image.anonymous)
    image.build(image.Recipe(base=base, python="3.12"), credentials=image.anonymous)
    with pytest.raises(RegistryError, match="404"):
        image.build(image.Recipe(base=base.tagged("2")), credentials=image.anonymous)


def test_a_base_that_is_not_what_its_digest_says_is_refused(
    registry: RegistryStandIn, recipe: image.Recipe, base: image.Reference
) -> None:
    media_type, content = registry.contents.manifests["library/python", "3.12"]
    digest = digest_of(content)
    registry.contents.manifests["library/python", digest] = (media_type, content + b" ")
    with pytest.raises(RegistryError, match="other content"):
        image.build(image.Recipe(base=base.at(digest)), credentials=image.anonymous)


def test_a_base_of_another_registry_is_copied(registry: RegistryStandIn, recipe: image.Recipe) -> None:
    with RegistryStandIn() as other:
        made = image.build(recipe, credentials=image.anonymous)
        registry.fail("GET", 503)
        pushed = image.push(made, f"{other.address}/team/modelserve", credentials=image.anonymous)
    assert set(pushed.outcomes.values()) == {UPLOADED}


def test_a_layer_of_the_base_that_comes_with_other_content_is_refused_and_not_kept(
    registry: RegistryStandIn, recipe: image.Recipe
) -> None:
    made = image.build(recipe, credentials=image.anonymous)
    blobs, digest = registry.contents.blobs, made.layers[0].digest
    right, blobs["library/python", digest] = blobs["library/python", digest], b"other content"
    with RegistryStandIn() as other:
        with pytest.raises(RegistryError, match="did not come whole"):
            image.push(made, f"{other.address}/team/modelserve", credentials=image.anonymous)
        assert other.contents.blobs == {}
        blobs["library/python", digest] = right
        image.push(made, f"{other.address}/team/modelserve", credentials=image.anonymous)
        assert other.contents.blobs["team/modelserve", digest] == right


def test_a_layout_is_written_whole_or_not_at_all(recipe: image.Recipe, tmp_path: Path) -> None:
    made, folder = image.build(recipe, credentials=image.anonymous), tmp_path / "image.oci"
    image.write_layout(made, folder)
    index = json.loads((folder / "index.json").read_text())
    assert [entry["digest"] for entry in index["manifests"]] == [made.digest]
    for blob in (folder / "blobs" / "sha256").iterdir():
        assert digest_of(blob.read_bytes()) == f"sha256:{blob.name}"
    with pytest.raises(ImageError, match="exists"):
        image.write_layout(made, folder)
    made.layers[0].bring().write_bytes(b"spoiled")
    with pytest.raises(ImageError, match="damaged"):
        image.write_layout(made, tmp_path / "second.oci")
    assert [path.name for path in tmp_path.glob("*second*")] == []


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from modelserve.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["image", "build", *map(str, arguments)])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_the_command_pushes_writes_and_tells_what_it_did(
    registry: RegistryStandIn, recipe: image.Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, folder = f"{registry.address}/team/modelserve", tmp_path / "runtime.oci"
    status, out, err = command(capsys, "--base", recipe.base, "--push", place, "--output", folder, "--json")
    assert status == 0, err
    said = json.loads(out)
    assert said["reference"] == f"{place}@{said['digest']}"
    assert sorted(said["blobs"].values()) == ["mounted", "mounted", "uploaded", "uploaded", "uploaded"]
    assert said["packages"] == {"onnxruntime": "1.0", "plain": "2.0"}
    assert json.loads((folder / "index.json").read_text())["manifests"][0]["digest"] == said["digest"]

    status, out, _ = command(capsys, "--base", recipe.base, "--push", f"{place}:{said['tag']}")
    assert status == 0
    assert "it was there already" in out
    assert said["digest"] in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--accelerator", "cuda"], 1, "runs on processors only"),
        (["--platform", "linux/riscv64"], 2, "linux/amd64, linux/arm64"),
        (["--push", "Not A Name"], 2, "does not name an image"),
        (["--output", "."], 1, "exists"),
        (["--extra", "tabels"], 1, "no extra 'tabels'"),
        (["--base", "127.0.0.1:9/python:3"], 1, "cannot be reached|can it be reached"),
    ],
)
def test_what_cannot_be_built_is_one_line_and_a_status(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    import re

    found, out, err = command(capsys, *arguments)
    assert (found, out) == (status, "")
    assert re.search(message, err)
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_the_layout_and_the_registry(
    registry: RegistryStandIn, recipe: image.Recipe, tmp_path: Path
) -> None:
    made = image.build(recipe, credentials=image.anonymous)
    image.write_layout(made, tmp_path / "image.oci")
    pushed = image.push(made, f"{registry.address}/team/modelserve", credentials=image.anonymous)
    for source in (f"oci:{tmp_path / 'image.oci'}", f"docker://{pushed.reference}"):
        command = ["skopeo", "inspect", "--tls-verify=false", source]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["Digest"] == made.digest


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[str]:
    """Debian's own registry, on a port of this machine; its address."""
    import socket
    import time

    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = tmp_path / "registry.yml"
    settings.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'stored'}}}}}\n"
        f"http: {{addr: '{address}'}}\nlog: {{level: error}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(tuple(address.split(":")), 1).close()  # type: ignore[arg-type]
                break
            except OSError:
                assert time.monotonic() < deadline, "docker-registry does not listen."
                assert process.poll() is None, "docker-registry ended."
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("chunk_bytes", [None, 1 << 20])
def test_a_registry_of_another_make_takes_it_and_gives_it_back(
    docker_registry: str, recipe: image.Recipe, chunk_bytes: int | None
) -> None:
    made = image.build(recipe, credentials=image.anonymous)
    place = f"{docker_registry}/team/modelserve"
    pushed = image.push(made, place, credentials=image.anonymous, chunk_bytes=chunk_bytes)
    assert set(pushed.outcomes.values()) == {UPLOADED}
    assert image.find(place, recipe, credentials=image.anonymous) == pushed.reference
    neighbour = image.Recipe(base=pushed.reference, python="3.12")
    again = image.build(neighbour, credentials=image.anonymous)
    outcomes = image.push(again, f"{docker_registry}/team/other", credentials=image.anonymous).outcomes
    assert outcomes[made.layers[0].digest] is MOUNTED
