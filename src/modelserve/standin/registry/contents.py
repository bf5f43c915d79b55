"""What a registry holds, and what it refuses to hold.

A manifest is taken only when every blob that it names is there, a blob only when it is what its digest says, a chunk
only when it begins where the last one ended.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RANGE = re.compile(r"(\d+)-(\d+)")
_MANIFESTS = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
_INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}


class Refusal(Exception):  # noqa: N818  # it is an answer, not a fault
    """The registry says no; code and status are the specification's."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


@dataclass(slots=True)
class Upload:
    """A blob that is coming in. Only the latest address that was given out may be written to."""

    repository: str
    content: bytearray = field(default_factory=bytearray)
    state: str = ""


@dataclass(slots=True)
class Contents:
    """Blobs and manifests by repository."""

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def blob(self, repository: str, digest: str) -> bytes:
        found = self.blobs.get((repository, _checked_digest(digest)))
        if found is None:
            raise Refusal(404, "BLOB_UNKNOWN", f"{repository} has no blob {digest}")
        return found

    def manifest(self, repository: str, version: str, accepted: str) -> tuple[str, bytes]:
        media_type, content = self.manifests.get((repository, version), ("", b""))
        if not media_type or (media_type not in accepted and "*/*" not in accepted):
            raise Refusal(404, "MANIFEST_UNKNOWN", f"{repository} has no manifest {version} of a kind that is accepted")
        return media_type, content

    def put_manifest(self, repository: str, version: str, media_type: str, content: bytes) -> str:
        """Take a manifest; gives its digest."""
        digest = digest_of(content)
        if not (_TAG.fullmatch(version) or _DIGEST.fullmatch(version)):
            raise Refusal(400, "MANIFEST_INVALID", f"{version!r} is neither tag nor digest")
        if _DIGEST.fullmatch(version) and version != digest:
            raise Refusal(400, "DIGEST_INVALID", f"the content is {digest}")
        for known, wanted in _named(media_type, content):
            there = self.manifests if known == "manifest" else self.blobs
            if (repository, wanted) not in there:
                raise Refusal(404, "MANIFEST_BLOB_UNKNOWN", f"{repository} has no {known} {wanted}")
        with self.lock:
            self.manifests[repository, version] = self.manifests[repository, digest] = (media_type, content)
        return digest

    def begin(self, repository: str) -> str:
        """Open an upload; gives the path to write to."""
        name = uuid.uuid4().hex
        with self.lock:
            self.uploads[name] = Upload(check_name(repository))
        return self.address(name)

    def mounts(self, repository: str, digest: str, source: str) -> bool:
        """Whether a blob could be taken over from a neighbour."""
        with self.lock:
            found = self.blobs.get((source, digest))
            if found is not None:
                self.blobs[repository, digest] = found
        return found is not None

    def address(self, name: str) -> str:
        """A new address for an upload; those given out before may only be asked how far it got."""
        upload = self.uploads[name]
        upload.state = uuid.uuid4().hex
        return f"/v2/{upload.repository}/blobs/uploads/{name}?state={upload.state}"

    def upload(self, repository: str, name: str, state: str | None) -> Upload:
        """An upload that may be written to; with a state of None, asked about."""
        found = self.uploads.get(name)
        if found is None or found.repository != repository or state not in {None, found.state}:
            raise Refusal(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload, or its address is not the latest")
        return found

    def finish(self, name: str, digest: str) -> None:
        """The blob is whole."""
        upload = self.uploads[name]
        content = bytes(upload.content)
        if digest_of(content) != _checked_digest(digest):
            raise Refusal(400, "DIGEST_INVALID", f"the content is {digest_of(content)}")
        with self.lock:
            self.blobs[upload.repository, digest] = content
            del self.uploads[name]


def check_range(upload: Upload, text: str, length: int) -> None:
    """A chunk begins where the last one ended, and is as long as it says."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise Refusal(400, "BLOB_UPLOAD_INVALID", f"Content-Range {text!r} is not FIRST-LAST")
    first, last = int(match[1]), int(match[2])
    if first != len(upload.content):
        raise Refusal(416, "BLOB_UPLOAD_INVALID", "out of order", {"Range": stands_at(upload)})
    if last - first + 1 != length:
        raise Refusal(400, "SIZE_INVALID", f"Content-Range {text!r} and Content-Length {length} differ")


def stands_at(upload: Upload) -> str:
    """How far an upload got, as a registry says it."""
    return f"0-{max(0, len(upload.content) - 1)}"


def check_name(repository: str) -> str:
    """Refuse what is no repository's name."""
    if not _NAME.fullmatch(repository):
        raise Refusal(400, "NAME_INVALID", f"{repository!r} is no repository's name")
    return repository


def digest_of(content: bytes) -> str:
    """The name of these bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _checked_digest(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise Refusal(400, "DIGEST_INVALID", f"{digest!r} is no digest")
    return digest


def _named(media_type: str, content: bytes) -> list[tuple[str, str]]:
    """What a manifest names: blobs, or the manifests of an index."""
    try:
        found: Any = json.loads(content)
        if found["schemaVersion"] != 2 or found.get("mediaType", media_type) != media_type:
            raise Refusal(400, "MANIFEST_INVALID", "schemaVersion or mediaType do not fit")
        if media_type in _INDEXES:
            return [("manifest", entry["digest"]) for entry in found["manifests"]]
        if media_type in _MANIFESTS:
            return [("blob", entry["digest"]) for entry in (found["config"], *found["layers"])]
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(400, "MANIFEST_INVALID", f"{type(error).__name__}: {error}") from error
    raise Refusal(415, "MANIFEST_INVALID", f"{media_type!r} is no kind of manifest")
