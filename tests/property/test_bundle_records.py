"""Manifests and archives: what is written can be read; what is noise is refused, by BundleError alone."""

import contextlib
import io
import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from modelserve.bundle import FileEntry, Manifest, Origin, Step
from modelserve.bundle.archive import pack, unpack
from modelserve.errors import BundleError
from modelserve.testing import models, strategies

TEXT = st.text(max_size=6)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
SETTINGS = st.dictionaries(TEXT, PLAIN, max_size=3)
FILES = st.dictionaries(
    TEXT, st.builds(FileEntry, st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(0, 1 << 40))
)
MANIFESTS = st.builds(
    Manifest,
    strategies.signatures(),
    st.builds(Origin, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=2)),
    st.lists(st.builds(Step, TEXT, SETTINGS), max_size=3).map(tuple),
    FILES,
    FILES,
    st.booleans(),
    st.lists(SETTINGS, max_size=2).map(tuple),
)


@given(MANIFESTS)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert (again.digest, again.to_json()) == (manifest.digest, manifest.to_json())


@given(st.binary() | PLAIN.map(lambda content: json.dumps(content).encode()))
def test_noise_is_no_manifest(noise: bytes) -> None:
    with contextlib.suppress(BundleError):
        Manifest.from_json(noise)
        raise AssertionError(f"{noise!r} was taken for a manifest")


def archive() -> bytes:
    into = io.BytesIO()
    pack(models.mlp(), into)
    return into.getvalue()


@given(st.data())
def test_an_archive_with_one_byte_changed_is_the_same_bundle_or_refused(data: st.DataObject) -> None:
    content = bytearray(archive())
    size = len(content.rstrip(b"\0"))
    content[data.draw(st.integers(0, size - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(BundleError):
        # Modes and names of owners mean nothing to a bundle.
        assert unpack(bytes(content), Path(folder) / "copy").manifest == models.mlp().manifest


@given(st.binary(max_size=2000))
def test_noise_is_no_archive(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(BundleError):
            unpack(noise, Path(folder) / "copy")
            raise AssertionError(f"{noise!r} was taken for an archive")
        assert list(Path(folder).iterdir()) == []
