"""One repository of a registry: manifests and blobs by their digests.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import httpx

from modelserve.errors import RegistryError
from modelserve.image.blob import digest_of
from modelserve.image.platform import Platform
from modelserve.image.session import Session, is_passing, retry_after_s

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_ACCEPT = ", ".join((MANIFEST, _DOCKER_MANIFEST, INDEX, _DOCKER_INDEX))
_DIGEST_HEADER = "docker-content-digest"


class Repository:
    """What lies under one name."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name
        self.pull = f"repository:{name}:pull"
        self.push = f"repository:{name}:pull,push"

    def digest(self, version: str) -> str | None:
        """The digest of the manifest that a tag, or a digest, names; None where there is none."""
        path = f"/v2/{self.name}/manifests/{version}"
        answer = self.session.send("HEAD", path, scope=self.pull, headers={"accept": _ACCEPT}, expected=(200, 404))
        if answer.status_code != httpx.codes.OK:
            return None
        return answer.headers.get(_DIGEST_HEADER) or digest_of(self._manifest(version).content)

    def manifest(self, version: str, platform: Platform) -> tuple[dict[str, Any], str]:
        """The manifest for a platform, and the digest by which `version` is known.

        Raises:
            RegistryError: there is none, it is not what its digest says, or it is not for that platform.
        """
        answer = self._manifest(version)
        digest = digest_of(answer.content)
        if version.startswith("sha256:") and digest != version:
            raise RegistryError(f"{self._named(version)} came with other content ({digest}). Do not use it.")
        content = _json(answer, self._named(version))
        if "manifests" not in content:
            return content, digest
        found = [entry["digest"] for entry in content["manifests"] if _is_for(entry.get("platform") or {}, platform)]
        if not found:
            raise RegistryError(f"{self._named(version)} is not made for {platform}. Choose another base.")
        return self.manifest(found[0], platform)[0], digest

    def content(self, digest: str) -> bytes:
        """A small blob."""
        path = f"/v2/{self.name}/blobs/{digest}"
        content = self.session.send("GET", path, scope=self.pull, expected=(200,)).content
        if digest_of(content) != digest:
            raise RegistryError(f"{self._named(digest)} came with other content. Do not use it.")
        return content

    def fetch(self, digest: str, into: Path) -> None:
        """A large blob, into a file, whole.

        Raises:
            RegistryError: it broke off again and again, or is not what its digest says.
        """
        for wait_s in (*self.session.waits_s, None):
            try:
                if self._fetched(digest, into):
                    return
            except httpx.TransportError as error:
                if wait_s is None:
                    raise RegistryError(
                        f"{self._named(digest)} broke off ({type(error).__name__}: {error})."
                    ) from error
            if wait_s is None:
                raise RegistryError(f"{self._named(digest)} did not come whole. Try again later.")
            time.sleep(wait_s)

    def _fetched(self, digest: str, into: Path) -> bool:
        """Whether it came whole; False where trying again may help."""
        found = hashlib.sha256()
        with self.session.stream(f"/v2/{self.name}/blobs/{digest}", scope=self.pull) as answer, into.open("wb") as file:
            if is_passing(answer):
                time.sleep(retry_after_s(answer))
                return False
            if not answer.is_success:
                answer.read()
                raise self.session.refused(answer)
            for piece in answer.iter_raw():
                found.update(piece)
                file.write(piece)
        return f"sha256:{found.hexdigest()}" == digest

    def _manifest(self, version: str) -> httpx.Response:
        path = f"/v2/{self.name}/manifests/{version}"
        return self.session.send("GET", path, scope=self.pull, headers={"accept": _ACCEPT}, expected=(200,))

    def put_manifest(self, version: str, content: bytes) -> None:
        """Have the registry know this manifest under a tag or its digest.

        Raises:
            RegistryError: it does not take it, or takes it for another.
        """
        path, digest = f"/v2/{self.name}/manifests/{version}", digest_of(content)
        headers = {"content-type": MANIFEST}
        answer = self.session.send("PUT", path, scope=self.push, headers=headers, body=content, expected=(201,))
        taken = answer.headers.get(_DIGEST_HEADER, digest)
        if taken != digest:
            raise RegistryError(f"{self._named(version)} was stored as {taken}, sent was {digest}. Do not use it.")

    def _named(self, version: str) -> str:
        return f"{self.session.registry}/{self.name}{'@' if ':' in version else ':'}{version}"


def _is_for(found: dict[str, Any], platform: Platform) -> bool:
    return found.get("os") == "linux" and found.get("architecture") == platform.architecture


def _json(answer: httpx.Response, name: str) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise RegistryError(f"{name} has no manifest of a kind that is known.")
    return content
