"""A manifest says what a bundle is, and notices when a part of it changed."""

import hashlib
import json
from dataclasses import replace

import pytest

from modelserve.bundle import FileEntry, Manifest, Origin, Step
from modelserve.errors import BundleError, DamagedBundleError, ForeignBundleError, NewerBundleError
from modelserve.tensors import Signature, TensorSpec

MANIFEST = Manifest(
    signature=Signature((TensorSpec("x", "float32", ("batch", 2)),), (TensorSpec("y", "string", ("batch",)),)),
    origin=Origin("sklearn", "sklearn.linear_model.LogisticRegression", {"sklearn": "1.9.1"}),
    lineage=(Step("convert", {"opset": 20}),),
    files={"model.onnx": FileEntry("ab" * 32, 7)},
    beside={"example.npz": FileEntry("cd" * 32, 9)},
    rows_independent=True,
    reports=({"kind": "fidelity", "largest": 1e-7},),
)


def sealed(content: dict) -> bytes:
    """A manifest whose checksum is right, whatever it says."""
    content = {key: value for key, value in content.items() if key != "checksum"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({**content, "checksum": hashlib.sha256(canonical).hexdigest()}).encode()


def test_it_is_read_as_it_was_written() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert Manifest.from_json(sealed(json.loads(MANIFEST.to_json()))) == MANIFEST


@pytest.mark.parametrize(
    "other",
    [
        MANIFEST.with_reports([]),
        replace(MANIFEST, beside={}),
        replace(MANIFEST, origin=Origin("onnx", "ModelProto")),
    ],
)
def test_reports_examples_and_origins_are_no_part_of_the_digest(other: Manifest) -> None:
    assert other.digest == MANIFEST.digest
    assert other.to_json() != MANIFEST.to_json()


@pytest.mark.parametrize(
    "other",
    [
        replace(MANIFEST, rows_independent=False),
        replace(MANIFEST, lineage=(Step("convert", {"opset": 21}),)),
        replace(MANIFEST, files={"model.onnx": FileEntry("ab" * 32, 8)}),
        replace(MANIFEST, signature=replace(MANIFEST.signature, inputs=(TensorSpec("x", "float64", ("batch", 2)),))),
    ],
)
def test_what_the_model_means_is_in_the_digest(other: Manifest) -> None:
    assert other.digest != MANIFEST.digest


@pytest.mark.parametrize("key", sorted(json.loads(MANIFEST.to_json())))
def test_no_part_of_it_changes_unseen(key: str) -> None:
    content = json.loads(MANIFEST.to_json())
    content[key] = "changed"
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(content).encode())


def test_a_report_cannot_be_embellished() -> None:
    with pytest.raises(DamagedBundleError, match="checksum"):
        Manifest.from_json(MANIFEST.to_json().replace(b"1e-07", b"1e-09"))


def test_a_digest_that_is_anothers_is_noticed_under_a_right_checksum() -> None:
    with pytest.raises(DamagedBundleError, match="digest is not that of its content"):
        Manifest.from_json(sealed({**json.loads(MANIFEST.to_json()), "digest": "0" * 64}))


def test_a_newer_format_says_what_to_do() -> None:
    with pytest.raises(NewerBundleError, match=r"format 2.*Upgrade modelserve"):
        Manifest.from_json(b'{"format": 2, "whatever": "it holds"}')


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"3",
        b'"format"',
        b"{}",
        b'{"format": 0}',
        b'{"format": "1"}',
        b'{"format": 1, "a": NaN}',
    ],
)
def test_what_is_no_manifest_is_foreign(content: bytes) -> None:
    with pytest.raises(ForeignBundleError):
        Manifest.from_json(content)


@pytest.mark.parametrize("value", [None, 5, "text", [5], {"x": 5}])
@pytest.mark.parametrize("key", ["signature", "origin", "lineage", "files", "beside", "reports"])
def test_a_part_of_a_wrong_kind_is_refused_under_a_right_checksum(key: str, value: object) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(sealed({**json.loads(MANIFEST.to_json()), key: value}))
