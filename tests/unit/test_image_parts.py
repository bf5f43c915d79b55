"""What an image is put together from: names, platforms, packages, layers, logins."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.tags import parse_tag

from modelserve import image
from modelserve.errors import ConfigError, ImageError, InputError, NotSupportedError
from modelserve.image.layer import Entry, Layer, keep
from modelserve.image.packages import pinned, python_version
from modelserve.image.product import product_layer

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "registry", "repository", "version"),
    [
        ("python", "docker.io", "library/python", "latest"),
        ("python:3.12-slim", "docker.io", "library/python", "3.12-slim"),
        ("docker.io/python:3", "docker.io", "library/python", "3"),
        ("team/app", "docker.io", "team/app", "latest"),
        ("localhost/app:1", "localhost", "app", "1"),
        ("127.0.0.1:5000/team/app:1", "127.0.0.1:5000", "team/app", "1"),
        (f"1.dkr.ecr.eu-west-1.amazonaws.com/a_b@{DIGEST}", "1.dkr.ecr.eu-west-1.amazonaws.com", "a_b", DIGEST),
        (f"eu-docker.pkg.dev/p/r/i:t@{DIGEST}", "eu-docker.pkg.dev", "p/r/i", DIGEST),
    ],
)
def test_a_name_is_read_as_every_tool_reads_it(text: str, registry: str, repository: str, version: str) -> None:
    found = image.Reference.parse(text)
    assert (found.registry, found.repository, found.version) == (registry, repository, version)
    assert image.Reference.parse(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "Team/app", "a:b:c", "a@sha256:1", "a@", "host.example/", "a//b", "a:-", "x" * 300]
)
def test_what_is_no_name_is_refused_with_the_way_to_write_one(text: str) -> None:
    with pytest.raises(InputError, match="Write registry/repository:tag"):
        image.Reference.parse(text)


def test_only_this_machine_is_asked_without_tls() -> None:
    urls = {text: image.Reference.parse(f"{text}/app").url for text in ("127.0.0.1:5000", "localhost:1", "h.example")}
    assert urls == {
        "127.0.0.1:5000": "http://127.0.0.1:5000", "localhost:1": "http://localhost:1", "h.example": "https://h.example",
    }  # fmt: skip
    assert image.Reference.parse("python").url == "https://registry-1.docker.io"


@pytest.mark.parametrize("text", ["linux/386", "windows/amd64", "amd64", ""])
def test_a_platform_without_an_image_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="linux/amd64, linux/arm64"):
        image.Platform.parse(text)


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", "x86_64"), ("arm64", "aarch64")])
def test_the_tags_of_wheels_are_those_of_that_processor_newest_first(architecture: str, machine: str) -> None:
    tags = image.Platform(architecture).wheel_platforms
    assert all(tag.endswith(machine) for tag in tags)
    assert tags.index(f"manylinux_2_28_{machine}") < tags.index(f"manylinux2014_{machine}")
    assert all(len(parse_tag(f"cp312-cp312-{tag}")) == 1 for tag in tags)


def test_the_packages_are_what_is_installed_here_decided_for_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import version

    found = dict(pinned(("server",), image.Platform("arm64"), "3.12"))
    assert found["onnxruntime"] == version("onnxruntime")
    assert "uvloop" in found
    assert "modelserve" not in found
    assert "pyarrow" not in found

    monkeypatch.setattr("modelserve.image.platform.Platform.markers", lambda *_: {**MARKERS, "sys_platform": "win32"})
    assert "uvloop" not in dict(pinned(("server",), image.Platform("arm64"), "3.12"))


MARKERS = image.Platform("amd64").markers("3.12")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def distribution(name: str) -> metadata.Distribution:
        if name == "orjson":
            raise metadata.PackageNotFoundError(name)
        return metadata.distribution(name)

    monkeypatch.setattr("modelserve.image.packages.distribution", distribution)
    with pytest.raises(ImageError, match=r"'orjson'.*pip install orjson"):
        pinned(("server",), image.Platform("amd64"), "3.12")


def test_what_makes_no_sense_in_a_recipe_is_refused() -> None:
    with pytest.raises(NotSupportedError, match="'cuda' has an accelerator"):
        image.Recipe(accelerator="cuda")
    with pytest.raises(ImageError, match="no extra 'tabels'"):
        image.Recipe(extras=("tabels",))
    with pytest.raises(ImageError, match="no version of Python"):
        image.Recipe(python="two")
    assert python_version("3.12.4") == "3.12"


def entries(*paths: str) -> list[Entry]:
    return [Entry(path, path.endswith(".so"), lambda path=path: f"content of {path}".encode()) for path in paths]


def layer(*paths: str, key: str) -> Layer:
    return keep(key, lambda write: write(entries(*paths)))


def test_the_same_files_give_the_same_bytes_in_any_order() -> None:
    first = layer("a/b.py", "a/c.so", "d", key="1").blob
    second = layer("d", "a/c.so", "a/b.py", key="2").blob
    assert first.digest == second.digest
    assert first.bring() != second.bring()
    assert first.bring().read_bytes() == second.bring().read_bytes()
    assert layer("d", key="3").blob.digest != first.digest


def test_a_layer_holds_files_of_nobody_and_no_time_below_their_folders() -> None:
    with tarfile.open(layer("a/b/c.so", "a/d.py", key="1").blob.bring()) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["a", "a/b", "a/b/c.so", "a/d.py"]
    assert {(member.uid, member.gid, member.mtime, member.uname) for member in members} == {(0, 0, 0, "")}
    assert [oct(member.mode) for member in members] == ["0o755", "0o755", "0o755", "0o644"]


def test_a_diff_id_is_the_digest_of_what_is_unpacked() -> None:
    import gzip

    from modelserve.image.blob import digest_of

    found = layer("a", key="1")
    assert found.diff_id == digest_of(gzip.decompress(found.blob.bring().read_bytes()))


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", ""])
def test_a_file_outside_of_the_image_is_refused(path: str) -> None:
    with pytest.raises(ImageError, match="outside of its image"):
        layer(path, key="1")


def test_a_layer_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise OSError("no more space")

    with pytest.raises(OSError, match="no more space"):
        keep("1", lambda write: write([Entry("a", False, fail)]))
    assert list((tmp_path / "home" / "images").iterdir()) == []
    assert layer("a", key="1").blob.size_bytes


def test_the_layer_of_modelserve_holds_the_package_and_its_version() -> None:
    from modelserve import __version__

    with tarfile.open(product_layer().blob.bring()) as tar:
        names = tar.getnames()
    assert "usr/local/lib/modelserve/modelserve/runtime/__main__.py" in names
    assert f"usr/local/lib/modelserve/modelserve-{__version__}.dist-info/METADATA" in names
    assert not [name for name in names if "__pycache__" in name]


def test_a_login_is_found_where_other_tools_left_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELSERVE_REGISTRY_USER", raising=False)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    auths = {"a.example": {"auth": "dXNlcjpzZWNyZXQ="}, "https://b.example": {"identitytoken": "t"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    assert image.configured("a.example") == image.Password("user", "secret")
    assert image.configured("b.example") == image.RefreshToken("t")
    assert image.configured("c.example") is None
    monkeypatch.setenv("MODELSERVE_REGISTRY_USER", "u")
    monkeypatch.setenv("MODELSERVE_REGISTRY_PASSWORD", "p")
    assert image.configured("c.example") == image.Password("u", "p")


def test_a_credential_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-mine"
    helper.write_text('#!/bin/sh\nread host\nprintf \'{"Username": "AWS", "Secret": "%s"}\' "$host"\n')
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"a.example": "mine"}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert image.configured("a.example") == image.Password("AWS", "a.example")


def test_a_broken_login_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(ConfigError, match=r"config\.json"):
        image.configured("a.example")


def test_secrets_are_never_shown() -> None:
    shown = repr([image.Password("u", "secret"), image.Bearer("secret"), image.RefreshToken("secret")])
    assert "secret" not in shown


def test_packages_that_images_need_are_named() -> None:
    program = "import sys; sys.modules['httpx'] = None; from modelserve import image; image.push"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "MissingExtraError: Images need the package 'httpx'" in done.stderr
    assert 'pip install "modelserve[image]"' in done.stderr
