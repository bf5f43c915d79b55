"""One blob on its way into a registry.

HEAD ─ there already ─────────────────────────────────────► EXISTS
POST uploads/?mount= ─ 201, taken over from a neighbour ──► MOUNTED
  └ 202 Location ──► PUT, all at once                       (Amazon ECR and Artifact Registry take nothing else)
                └──► PATCH, PATCH, ... PUT                  (Azure Container Registry takes nothing larger at once)

What broke off goes on from where the registry says that it stands.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from urllib.parse import urljoin

import httpx

from modelserve.errors import RegistryError
from modelserve.image.blob import Blob
from modelserve.image.repository import Repository
from modelserve.image.session import Body, is_passing, retry_after_s

#: Told how many bytes of the blob the registry has.
OnBytes = Callable[[int], None]

_OCTETS = "application/octet-stream"
_MINIMUM_HEADER = "oci-chunk-min-length"
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_CHUNKED_HOSTS = re.compile(r".*\.azurecr\.(io|cn|us)")
_CHUNK_BYTES = 4 << 20


class Outcome(Enum):
    """What became of a blob."""

    EXISTS = "exists"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


def chunk_bytes_of(registry: str) -> int | None:
    """How much a registry takes at once; None where it wants all at once."""
    return _CHUNK_BYTES if _CHUNKED_HOSTS.fullmatch(registry) else None


def upload(repository: Repository, blob: Blob, *, chunk_bytes: int | None, on_bytes: OnBytes) -> Outcome:
    """Have the registry hold this blob.

    Args:
        chunk_bytes: How much to send at once; None for all.

    Raises:
        AccessDeniedError: it does not let us.
        RegistryError: it refuses, or broke off more often than is sensible.
    """
    path = f"/v2/{repository.name}/blobs/{blob.digest}"
    found = repository.session.send("HEAD", path, scope=repository.push, expected=(200, 404))
    if found.status_code == httpx.codes.OK:
        return Outcome.EXISTS
    return _Upload(repository, blob, chunk_bytes, on_bytes).run()


class _Upload:
    """One upload, until the registry holds the blob or it is given up."""

    def __init__(self, repository: Repository, blob: Blob, chunk_bytes: int | None, on_bytes: OnBytes) -> None:
        self._repository = repository
        self._session = repository.session
        self._blob = blob
        self._chunk_bytes = chunk_bytes
        self._on_bytes = on_bytes
        self._scope = repository.push
        self._location = ""
        self._offset = 0

    def run(self) -> Outcome:
        if self._begin(self._mount()):
            return Outcome.MOUNTED
        waits = iter(self._session.waits_s)
        while True:
            before = self._offset
            try:
                answer = self._send()
            except httpx.TransportError as error:
                answer, why = None, f"{type(error).__name__}: {error}"
            else:
                if answer is None:
                    return Outcome.UPLOADED
                if not is_passing(answer) and answer.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise self._session.refused(answer)
                why = f"status {answer.status_code}"
            if self._offset > before:
                waits = iter(self._session.waits_s)
            self._wait(waits, answer, why)
            self._resume()

    def _send(self) -> httpx.Response | None:
        """Send what is missing; an answer other than success ends it."""
        if self._chunk_bytes is None:
            return self._put(partial(self._counted, 0, self._blob.size_bytes), self._blob.size_bytes)
        while self._offset < self._blob.size_bytes:
            refused = self._patch(min(self._offset + self._chunk_bytes, self._blob.size_bytes))
            if refused is not None:
                return refused
        return self._put(b"", 0)

    def _patch(self, stop: int) -> httpx.Response | None:
        headers = {
            "content-type": _OCTETS,
            "content-length": str(stop - self._offset),
            "content-range": f"{self._offset}-{stop - 1}",
        }
        body = partial(self._counted, self._offset, stop)
        answer = self._session.once("PATCH", self._location, scope=self._scope, headers=headers, body=body)
        if not answer.is_success:
            return answer
        self._follow(answer)
        self._offset = stop
        return None

    def _put(self, body: bytes | Body, size_bytes: int) -> httpx.Response | None:
        url = f"{self._location}{'&' if '?' in self._location else '?'}digest={self._blob.digest}"
        headers = {"content-type": _OCTETS, "content-length": str(size_bytes)}
        answer = self._session.once("PUT", url, scope=self._scope, headers=headers, body=body)
        return None if answer.is_success else answer

    def _mount(self) -> dict[str, str]:
        origin = self._blob.origin
        is_neighbour = origin is not None and origin.registry == self._session.registry
        if origin is None or not is_neighbour or origin.repository == self._repository.name:
            return {}
        return {"mount": self._blob.digest, "from": origin.repository}

    def _begin(self, mount: dict[str, str]) -> bool:
        """Open an upload; True where the registry took the blob over from a neighbour instead."""
        query = "?" + "&".join(f"{name}={value}" for name, value in mount.items()) if mount else ""
        self._scope = self._repository.push + (f" repository:{mount['from']}:pull" if mount else "")
        path = f"/v2/{self._repository.name}/blobs/uploads/{query}"
        answer = self._session.send("POST", path, scope=self._scope, expected=(201, 202))
        if answer.status_code == httpx.codes.CREATED:
            return True
        minimum = answer.headers.get(_MINIMUM_HEADER, "")
        if self._chunk_bytes is not None and minimum.isdecimal():
            self._chunk_bytes = max(self._chunk_bytes, int(minimum))
        self._offset = 0
        self._follow(answer)
        return False

    def _resume(self) -> None:
        """Ask how far it got; where the registry has forgotten it, or takes all at once, begin again."""
        if self._chunk_bytes is not None:
            answer = self._session.send("GET", self._location, scope=self._scope, expected=(200, 204, 404))
            stands = _RANGE.fullmatch(answer.headers.get("range", ""))
            if answer.is_success:
                # "0-0" should be one byte, and is what registries say of none; no chunk here is that small.
                self._offset = int(stands[1]) + 1 if stands and stands[1] != "0" else 0
                self._follow(answer)
                return
        self._begin({})

    def _follow(self, answer: httpx.Response) -> None:
        location = answer.headers.get("location")
        if location is None:
            raise RegistryError(f"Registry {self._session.registry!r} does not say where to upload to.")
        self._location = urljoin(str(answer.request.url), location)

    def _counted(self, start: int, stop: int) -> Iterator[bytes]:
        for piece in self._blob.pieces(start, stop):
            yield piece
            start += len(piece)
            self._on_bytes(start)

    def _wait(self, waits: Iterator[float], answer: httpx.Response | None, why: str) -> None:
        wait_s = next(waits, None)
        if wait_s is None:
            raise RegistryError(
                f"Uploading {self._blob.digest} to {self._session.registry}/{self._repository.name} broke off again "
                f"and again ({why}), at {self._offset} of {self._blob.size_bytes} bytes. Try again later."
            )
        time.sleep(max(wait_s, retry_after_s(answer) if answer is not None else 0.0))
