"""A bundle as one tar: always the same bytes, and nothing else is taken for one."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from modelserve.bundle import Bundle
from modelserve.bundle.archive import pack, unpack
from modelserve.errors import BundleError, DamagedBundleError, ForeignBundleError
from modelserve.testing import models


def packed(bundle: Bundle) -> bytes:
    into = io.BytesIO()
    pack(bundle, into)
    return into.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w", format=form) as archive:
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    return into.getvalue()


def entry(name: str, content: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def test_the_same_bundle_gives_the_same_bytes_whenever_and_wherever(tmp_path: Path) -> None:
    first = packed(models.mlp())
    bundle = unpack(first, tmp_path / "copy")
    for path in bundle.path.iterdir():
        path.chmod(0o600)
        os.utime(path, (1, 1))
    assert packed(bundle) == first


def test_what_was_packed_is_what_is_unpacked(tmp_path: Path) -> None:
    bundle = models.linear(1500, 1500)
    copy = unpack(packed(bundle), tmp_path / "deep" / "copy")
    assert copy.path == tmp_path / "deep" / "copy"
    assert copy.manifest == bundle.manifest
    assert Bundle.open(copy.path) == copy


def test_any_tool_can_read_it() -> None:
    bundle = models.mlp()
    assert members(packed(bundle)) == {path.name: path.read_bytes() for path in bundle.path.iterdir()}


def test_unpacking_twice_into_one_folder_is_quiet(tmp_path: Path) -> None:
    content = packed(models.mlp())
    assert unpack(content, tmp_path / "copy") == unpack(content, tmp_path / "copy")


def test_one_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    content = packed(models.mlp())
    whole = len(content.rstrip(b"\0"))
    for size in range(0, whole, 97):
        with pytest.raises(BundleError):
            unpack(content[:size], tmp_path / "copy")
    assert list(tmp_path.glob("*copy*")) == []
    assert list(tmp_path.glob(".unpacking*")) == []


def _negative_size() -> bytes:
    raw = bytearray(tar(entry("model.onnx", b"x")))
    raw[124:136] = b"\xff" * 10 + b"\xfe\x00"
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


HOSTILE = {
    "climbing": tar(entry("../out", b"x")),
    "absolute": tar(entry("/tmp/out", b"x")),
    "the folder above": tar(entry("..", b"x")),
    "no name": tar(entry("", b"x")),
    "in a folder": tar(entry("inner/model.onnx", b"x")),
    "a folder": tar(entry("inner", type=tarfile.DIRTYPE)),
    "a link": tar(entry("model.onnx", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "a hard link": tar(entry("model.onnx", type=tarfile.LNKTYPE, linkname="/etc/passwd")),
    "a device": tar(entry("model.onnx", type=tarfile.CHRTYPE)),
    "a pipe": tar(entry("model.onnx", type=tarfile.FIFOTYPE)),
    "a sparse file": tar(entry("model.onnx", b"x", type=tarfile.GNUTYPE_SPARSE), form=tarfile.GNU_FORMAT),
    "a name with NUL": tar(entry("x", b"x", pax_headers={"path": "a\0b"}), form=tarfile.PAX_FORMAT),
    "a name too long": tar(entry("x" * 300, b"x"), form=tarfile.PAX_FORMAT),
    "a file twice": tar(entry("model.onnx", b"x"), entry("model.onnx", b"y")),
    "a size below zero": _negative_size(),
    "too many files": tar(*(entry(f"file{number}") for number in range(100))),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_no_bundle_holds_is_refused_and_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    place = tmp_path / "room"
    with pytest.raises(ForeignBundleError, match="archive holds"):
        unpack(content, place / "copy")
    assert list(place.iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_a_file_that_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    files = members(packed(models.mlp()))
    content = tar(*(entry(name, content) for name, content in {**files, "stowaway.so": b"x"}.items()))
    with pytest.raises(ForeignBundleError, match=r"stowaway\.so"):
        unpack(content, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_changed_model_is_noticed(tmp_path: Path) -> None:
    files = members(packed(models.mlp()))
    files["model.onnx"] = files["model.onnx"][:-1] + b"!"
    with pytest.raises(DamagedBundleError):
        unpack(tar(*(entry(name, content) for name, content in files.items())), tmp_path / "copy")
