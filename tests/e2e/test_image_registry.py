"""Images on their way into registries: the stand-in, strict to the specification, and with each cloud's ways."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserve import image
from modelserve.errors import AccessDeniedError, ImageError, RegistryError
from modelserve.image.assembly import CONFIG, Image
from modelserve.image.blob import Blob, digest_of
from modelserve.image.layer import Entry, Layer, keep
from modelserve.image.packages import Pin
from modelserve.image.repository import MANIFEST
from modelserve.image.session import Session
from modelserve.image.store import in_store
from modelserve.image.upload import Outcome
from modelserve.standin.registry import Door, RegistryStandIn, put_image
from modelserve.standin.registry.access import PASSWORD, REFRESH_TOKEN, USER

MIB = 1 << 20
EXISTS, MOUNTED, UPLOADED = Outcome.EXISTS, Outcome.MOUNTED, Outcome.UPLOADED


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "waits_s", (0.0, 0.0, 0.0))


@pytest.fixture
def registry() -> Iterator[RegistryStandIn]:
    with RegistryStandIn() as found:
        yield found


def some_image(*layers: bytes, origin: image.Reference | None = None) -> Image:
    """An image of a few bytes; what is in its layers is nobody's business here."""
    blobs = tuple(in_store("application/vnd.oci.image.layer.v1.tar", content) for content in layers)
    blobs = tuple(Blob(b.media_type, b.digest, b.size_bytes, b.bring, origin) for b in blobs)
    config = in_store(CONFIG, b"{}")
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor,
            "layers": [blob.descriptor for blob in blobs],
        }
    ).encode()
    return Image(digest_of(manifest), "0.1-test", image.Platform("amd64"), manifest, config, blobs, ())


def password(_registry: str) -> image.Login:
    return image.Password(USER, PASSWORD)


def sent(registry: RegistryStandIn, method: str) -> list[int]:
    return [asked.body_bytes for asked in registry.asked if asked.method == method and "/blobs/uploads/" in asked.path]


def test_what_was_pushed_is_there_by_tag_and_by_digest(registry: RegistryStandIn) -> None:
    made = some_image(b"one", b"two")
    pushed = image.push(made, f"{registry.address}/team/app:1", credentials=image.anonymous)
    assert str(pushed.reference) == f"{registry.address}/team/app@{made.digest}"
    assert list(pushed.outcomes.values()) == [UPLOADED] * 3
    assert registry.contents.manifests["team/app", "1"][1] == made.manifest
    assert registry.contents.manifests["team/app", made.digest][1] == made.manifest


def test_a_second_push_sends_nothing(registry: RegistryStandIn) -> None:
    made, place = some_image(b"one"), f"{registry.address}/team/app"
    image.push(made, place, credentials=image.anonymous)
    registry.asked.clear()
    assert image.push(made, place, credentials=image.anonymous).outcomes == {}
    assert [asked.method for asked in registry.asked] == ["HEAD"]


def test_what_is_there_already_is_skipped(registry: RegistryStandIn) -> None:
    image.push(some_image(b"one"), f"{registry.address}/team/app", credentials=image.anonymous)
    pushed = image.push(some_image(b"one", b"two"), f"{registry.address}/team/app:2", credentials=image.anonymous)
    assert list(pushed.outcomes.values()) == [EXISTS, UPLOADED, EXISTS]


def test_a_base_in_the_same_registry_is_taken_over_without_being_fetched(registry: RegistryStandIn) -> None:
    base = image.Reference(registry.address, "library/base")
    image.push(some_image(b"one"), base.tagged("1"), credentials=image.anonymous)
    made = some_image(b"one", origin=base)
    pushed = image.push(made, f"{registry.address}/team/app", credentials=image.anonymous)
    assert pushed.outcomes[made.layers[0].digest] is MOUNTED

    registry.mounts = False
    pushed = image.push(made, f"{registry.address}/team/other", credentials=image.anonymous)
    assert pushed.outcomes[made.layers[0].digest] is UPLOADED


@pytest.mark.parametrize("login", [image.Password(USER, PASSWORD), image.RefreshToken(REFRESH_TOKEN)])
def test_a_token_is_fetched_where_the_registry_asks_for_one(login: image.Login) -> None:
    with RegistryStandIn(door=Door.TOKEN) as registry:
        made, base = some_image(b"one"), image.Reference(registry.address, "library/base")
        image.push(made, base.tagged("1"), credentials=lambda _: login)
        made = some_image(b"one", origin=base)
        pushed = image.push(made, f"{registry.address}/team/app", credentials=lambda _: login)
        assert list(pushed.outcomes.values()) == [MOUNTED, UPLOADED]


def test_a_bearer_is_shown_as_it_is() -> None:
    with RegistryStandIn(door=Door.TOKEN) as registry:
        registry.access.tokens["mine"] = {"team/app:pull", "team/app:push"}
        place = f"{registry.address}/team/app"
        image.push(some_image(b"one"), place, credentials=lambda _: image.Bearer("mine"))
        with pytest.raises(AccessDeniedError):
            image.push(some_image(b"one"), place, credentials=lambda _: image.Bearer("other"))


def test_a_password_is_shown_where_the_registry_asks_for_one() -> None:
    with RegistryStandIn(door=Door.PASSWORD) as registry:
        image.push(some_image(b"one"), f"{registry.address}/team/app", credentials=password)


@pytest.mark.parametrize("door", [Door.PASSWORD, Door.TOKEN])
@pytest.mark.parametrize("login", [None, image.Password(USER, "wrong")])
def test_who_may_not_is_told_so_and_nothing_is_sent(door: Door, login: image.Login | None) -> None:
    with RegistryStandIn(door=door) as registry:
        with pytest.raises(AccessDeniedError, match="does not let us"):
            image.push(some_image(b"one"), f"{registry.address}/team/app", credentials=lambda _: login)
        assert registry.contents.blobs == {}


def test_a_login_that_expires_on_the_way_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    with RegistryStandIn(door=Door.TOKEN) as registry:
        asked: list[str] = []
        check = registry.access.check

        def login(name: str) -> image.Login:
            asked.append(name)
            return image.Password(USER, PASSWORD)

        def expiring(authorization: str, url: str, repository: str, action: str) -> None:
            if [call.method for call in registry.asked].count("PATCH") == 2:
                registry.access.tokens.pop(authorization.removeprefix("Bearer "), None)
            check(authorization, url, repository, action)

        monkeypatch.setattr(type(registry.access), "check", lambda _, *given: expiring(*given))
        made = some_image(b"x" * (4 * MIB))
        pushed = image.push(made, f"{registry.address}/team/app", credentials=login, chunk_bytes=MIB)
        assert pushed.outcomes[made.layers[0].digest] is UPLOADED
        assert len(asked) > 2


def test_a_refusal_that_does_not_say_how_to_log_in_is_final(registry: RegistryStandIn) -> None:
    registry.fail("POST", 401)
    with pytest.raises(AccessDeniedError, match="nothing that it names"):
        image.push(some_image(b"one"), f"{registry.address}/team/app", credentials=password)


def test_chunks_are_as_large_as_the_registry_takes_them() -> None:
    with RegistryStandIn(most_bytes=2 * MIB) as registry:
        made, place = some_image(b"x" * (5 * MIB)), f"{registry.address}/team/app"
        with pytest.raises(RegistryError, match="413"):
            image.push(made, place, credentials=image.anonymous)
        registry.asked.clear()
        image.push(made, place, credentials=image.anonymous, chunk_bytes=2 * MIB)
        assert sent(registry, "PATCH") == [2 * MIB, 2 * MIB, MIB, 2]


def test_a_registry_that_takes_no_chunks_is_sent_none() -> None:
    with RegistryStandIn(chunks=False) as registry:
        made = some_image(b"x" * (5 * MIB))
        image.push(made, f"{registry.address}/team/app", credentials=image.anonymous)
        assert sent(registry, "PUT") == [5 * MIB, 2]


def test_who_takes_what_is_known() -> None:
    from modelserve.image.upload import chunk_bytes_of

    assert chunk_bytes_of("team.azurecr.io") == 4 * MIB
    assert chunk_bytes_of("1.dkr.ecr.eu-west-1.amazonaws.com") is None
    assert chunk_bytes_of("europe-docker.pkg.dev") is None


@pytest.mark.parametrize("after", [0, MIB // 2, MIB - 1])
def test_what_broke_off_goes_on_where_it_stands(registry: RegistryStandIn, after: int) -> None:
    made = some_image(bytes(range(256)) * (16 * 1024))  # 4 MiB
    registry.break_off("PATCH", after)
    pushed = image.push(made, f"{registry.address}/team/app", credentials=image.anonymous, chunk_bytes=MIB)
    assert pushed.outcomes[made.layers[0].digest] is UPLOADED
    uploads = [asked for asked in registry.asked if asked.method == "POST"]
    assert len(uploads) == 2, "One for each blob: none was begun again."
    assert sum(sent(registry, "PATCH")) == 4 * MIB + 2, "No byte was taken twice."
    assert sent(registry, "PATCH")[0] == after


def test_an_upload_that_the_registry_forgot_begins_again(registry: RegistryStandIn) -> None:
    made = some_image(b"x" * (4 * MIB))
    registry.break_off("PATCH", MIB // 2)
    registry.fail("GET", 404)
    image.push(made, f"{registry.address}/team/app", credentials=image.anonymous, chunk_bytes=MIB)
    assert sum(sent(registry, "PATCH")) == 4 * MIB + MIB // 2 + 2


def test_a_whole_blob_that_broke_off_is_sent_again(registry: RegistryStandIn) -> None:
    made = some_image(b"x" * (4 * MIB))
    registry.break_off("PUT", MIB)
    image.push(made, f"{registry.address}/team/app", credentials=image.anonymous)
    assert sent(registry, "PUT") == [MIB, 4 * MIB, 2]


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_that_has_a_bad_moment_is_asked_again(registry: RegistryStandIn, method: str, status: int) -> None:
    registry.fail(method, status, times=2)
    made = some_image(b"x" * MIB)
    place = f"{registry.address}/team/app"
    pushed = image.push(made, place, credentials=image.anonymous, chunk_bytes=MIB // 2)
    assert registry.contents.manifests["team/app", pushed.reference.digest]


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
def test_a_registry_that_fails_for_good_is_given_up_and_gets_no_manifest(
    registry: RegistryStandIn, method: str
) -> None:
    registry.fail(method, 503, times=100)
    with pytest.raises(RegistryError):
        image.push(some_image(b"x"), f"{registry.address}/team/app", credentials=image.anonymous, chunk_bytes=MIB)
    assert registry.contents.manifests == {}


def test_a_missing_repository_is_named() -> None:
    with (
        RegistryStandIn(repositories={"there"}) as registry,
        pytest.raises(RegistryError, match=r"NAME_UNKNOWN.*team/app"),
    ):
        image.push(some_image(b"x"), f"{registry.address}/team/app", credentials=image.anonymous)


def test_a_registry_that_is_not_there_is_named() -> None:
    with RegistryStandIn() as registry:
        address = registry.address
    with pytest.raises(RegistryError, match=f"{address}.*4 attempts"):
        image.push(some_image(b"x"), f"{address}/team/app", credentials=image.anonymous)


def test_progress_ends_at_all_bytes(registry: RegistryStandIn) -> None:
    said: list[image.Progress] = []
    made = some_image(b"x" * (3 * MIB))
    image.push(made, f"{registry.address}/team/app", credentials=image.anonymous, on_progress=said.append)
    done = [progress.done_bytes for progress in said]
    assert done == sorted(done)
    assert done[-1] == said[-1].all_bytes == 3 * MIB + 2
    assert len(done) > 4


# The whole way, with a base of a few bytes and wheels that were made here.


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
