"""The image that everything else is put on: its manifest and configuration now, its layers when somebody needs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelserve.errors import ImageError
from modelserve.image.blob import Blob
from modelserve.image.credentials import Credentials
from modelserve.image.platform import Platform
from modelserve.image.reference import Reference
from modelserve.image.repository import Repository
from modelserve.image.session import Session
from modelserve.image.store import FILE, kept

_LAYER = "application/vnd.oci.image.layer.v1.tar"
#: Docker's names for what the OCI calls otherwise; the bytes are the same.
_RENAMED = {
    "application/vnd.docker.image.rootfs.diff.tar": _LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{_LAYER}+gzip",
}
_KNOWN = {_LAYER, f"{_LAYER}+gzip", f"{_LAYER}+zstd"}


@dataclass(frozen=True, slots=True)
class Base:
    """A base image for one platform.

    Attributes:
        digest: By which its registry knows it.
        config: Its whole configuration: environment, history, digests of what its layers unpack to.
    """

    digest: str
    config: Mapping[str, Any]
    layers: tuple[Blob, ...]

    @property
    def python(self) -> str:
        """The version of its Python, where it says so, as the official images do."""
        environment = (self.config.get("config") or {}).get("Env") or []
        said = dict(line.partition("=")[::2] for line in environment)
        return str(said.get("PYTHON_VERSION", ""))


def look_up(reference: Reference, platform: Platform, credentials: Credentials) -> Base:
    """Ask for a base.

    Raises:
        RegistryError: there is none, or not for that platform.
        ImageError: it is of a kind that nothing can be put on.
    """
    with Session(reference, credentials) as session:
        repository = Repository(session, reference.repository)
        manifest, digest = repository.manifest(reference.version, platform)
        config = json.loads(repository.content(manifest["config"]["digest"]))
    if config.get("architecture") != platform.architecture:
        raise ImageError(
            f"{reference} is made for {config.get('os')}/{config.get('architecture')}, not for {platform}. "
            "Choose another base."
        )
    layers = [_blob(one, reference, credentials) for one in manifest["layers"]]
    if len(config["rootfs"]["diff_ids"]) != len(layers):
        raise ImageError(f"{reference} has {len(layers)} layers and names others in its configuration. Do not use it.")
    return Base(digest, config, tuple(layers))


def _blob(descriptor: Mapping[str, Any], reference: Reference, credentials: Credentials) -> Blob:
    digest = str(descriptor["digest"])

    def bring() -> Path:
        return kept(digest.partition(":")[2], fetch) / FILE

    def fetch(into: Path) -> None:
        with Session(reference, credentials) as session:
            Repository(session, reference.repository).fetch(digest, into / FILE)

    return Blob(_media_type(descriptor, reference), digest, int(descriptor["size"]), bring, reference)


def _media_type(descriptor: Mapping[str, Any], reference: Reference) -> str:
    media_type = _RENAMED.get(descriptor["mediaType"], descriptor["mediaType"])
    if media_type not in _KNOWN:
        raise ImageError(f"{reference} has a layer of kind {media_type!r}, which cannot be put into another image.")
    return str(media_type)
