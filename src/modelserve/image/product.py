"""Modelserve itself as a layer: the package as it is installed here, and the metadata by which it knows its version."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from modelserve.image.blob import digest_of
from modelserve.image.layer import Entry, Layer, keep
from modelserve.image.wheels import SITE

_PACKAGE = Path(__file__).parent.parent


def product_layer() -> Layer:
    """One layer with modelserve, whichever way it was installed here."""
    key = product_digest()
    return keep(f"product {SITE} {key}", lambda write: write(product_entries()))


def product_digest() -> str:
    """What modelserve is here: the digest of its files by name."""
    lines = [f"{entry.path} {digest_of(entry.read())}" for entry in product_entries()]
    return digest_of("\n".join(lines).encode())


def product_entries() -> Iterator[Entry]:
    """The files of that layer, below the folder of modules (`SITE`)."""
    yield from _files()
    installed = distribution("modelserve")
    # Of its metadata only what tells name and version: entry points would offer backends that are not in the image.
    metadata = f"Metadata-Version: 2.1\nName: modelserve\nVersion: {installed.version}\n".encode()
    yield Entry(f"{SITE}/modelserve-{installed.version}.dist-info/METADATA", False, lambda: metadata)


def _files() -> Iterator[Entry]:
    for path in sorted(_PACKAGE.rglob("*")):
        parts = path.relative_to(_PACKAGE).parts
        # Not what Python and tools leave there.
        if path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            yield Entry(f"{SITE}/modelserve/{'/'.join(parts)}", False, path.read_bytes)
