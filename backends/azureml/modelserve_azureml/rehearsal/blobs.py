"""Blob storage as far as uploading and mounting a model needs it, in memory.

PUT blob, PUT block, PUT block list, HEAD, GET, metadata, DELETE, list; by a signature in the query or by a token.
https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from modelserve.standin.loopback import Answered
from modelserve_azureml.rehearsal.calls import Call, Refusal

ACCOUNT = "modelserverehearsal"
HOST = f"{ACCOUNT}.blob.core.windows.net"
_XML = {"content-type": "application/xml"}


class Blobs:
    """Containers and their blobs.

    Args:
        knows: Whether a token is one that the sign-in gave.
    """

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self._lock = threading.RLock()
        self._blobs: dict[str, bytes] = {}
        self._blocks: dict[str, dict[str, bytes]] = {}
        self._metadata: dict[str, dict[str, str]] = {}
        self._signatures: set[str] = set()

    def sign(self) -> str:
        """A query that lets its holder read and write."""
        signature = secrets.token_urlsafe(24)
        with self._lock:
            self._signatures.add(signature)
        return f"sv=2023-11-03&sr=c&sp=rwcl&se=2099-01-01T00%3A00%3A00Z&sig={signature}"

    def below(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Blobs by their name after `container/prefix`."""
        with self._lock:
            found = [(name, content) for name, content in self._blobs.items() if name.startswith(prefix)]
        for name, content in found:
            yield name[len(prefix) :].lstrip("/"), content

    def put(self, name: str, content: bytes) -> None:
        """Store a blob from within the cloud."""
        with self._lock:
            self._blobs[name] = content

    def remove(self, prefix: str) -> None:
        with self._lock:
            for name in [name for name in self._blobs if name.startswith(prefix)]:
                del self._blobs[name]

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._blobs)

    def answer(self, call: Call) -> Answered:
        if call.query.get("sig") not in self._signatures and not self._knows(call.bearer):
            raise Refusal(403, "AuthenticationFailed", "Server failed to authenticate the request.")
        name = unquote(call.path).strip("/")
        with self._lock:
            if call.query.get("restype") == "container":
                return self._container(call, name)
            return self._blob(call, name)

    def _container(self, call: Call, name: str) -> Answered:
        if call.query.get("comp") != "list":
            return Answered(201 if call.method == "PUT" else 200)
        root = ET.Element("EnumerationResults", {"ContainerName": name})
        listed = ET.SubElement(root, "Blobs")
        start = f"{name}/{call.query.get('prefix', '')}"
        for path, content in sorted(self._blobs.items()):
            if path.startswith(start):
                entry = ET.SubElement(listed, "Blob")
                ET.SubElement(entry, "Name").text = path[len(name) + 1 :]
                properties = ET.SubElement(entry, "Properties")
                ET.SubElement(properties, "Content-Length").text = str(len(content))
                ET.SubElement(properties, "BlobType").text = "BlockBlob"
        ET.SubElement(root, "NextMarker")
        return Answered(200, ET.tostring(root, "utf-8", xml_declaration=True), _XML)

    def _blob(self, call: Call, name: str) -> Answered:
        part = call.query.get("comp", "")
        if call.method == "PUT" and part == "block":
            self._blocks.setdefault(name, {})[call.query["blockid"]] = call.body
            return Answered(201, headers=_written(call.body))
        if call.method == "PUT" and part == "blocklist":
            return self._joined(call, name)
        if call.method == "PUT" and not part:
            return self._put(call, name, call.body)
        if name not in self._blobs:
            raise Refusal(404, "BlobNotFound", f"The specified blob {name} does not exist.")
        if call.method == "PUT" and part == "metadata":
            self._metadata[name] = _metadata(call)
            return Answered(200, headers=_written(b""))
        if call.method == "DELETE":
            del self._blobs[name]
            return Answered(202)
        return self._read(call, name)

    def _joined(self, call: Call, name: str) -> Answered:
        blocks = self._blocks.pop(name, {})
        wanted = [entry.text or "" for entry in ET.fromstring(call.body)]  # noqa: S314  # own clients only
        if any(block not in blocks for block in wanted):
            raise Refusal(400, "InvalidBlockList", "The specified block list is invalid.")
        return self._put(call, name, b"".join(blocks[block] for block in wanted))

    def _put(self, call: Call, name: str, content: bytes) -> Answered:
        if call.headers.get("if-none-match") == "*" and name in self._blobs:
            raise Refusal(409, "BlobAlreadyExists", f"The specified blob {name} already exists.")
        self._blobs[name] = content
        self._metadata[name] = _metadata(call)
        return Answered(201, headers=_written(content))

    def _read(self, call: Call, name: str) -> Answered:
        content = self._blobs[name]
        headers = {f"x-ms-meta-{key}": value for key, value in self._metadata.get(name, {}).items()}
        headers |= _written(content) | {"x-ms-blob-type": "BlockBlob", "content-type": "application/octet-stream"}
        asked = call.headers.get("x-ms-range") or call.headers.get("range") or ""
        if call.method == "GET" and asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            if int(first) >= len(content):
                raise Refusal(416, "InvalidRange", "The range specified is invalid for the current size.")
            start, end = int(first), min(int(last or len(content) - 1), len(content) - 1)
            headers["content-range"] = f"bytes {start}-{end}/{len(content)}"
            return Answered(206, content[start : end + 1], headers)
        return Answered(200, content, headers)


def _metadata(call: Call) -> dict[str, str]:
    return {
        name.removeprefix("x-ms-meta-"): value for name, value in call.headers.items() if name.startswith("x-ms-meta-")
    }


def _written(content: bytes) -> dict[str, str]:
    digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    return {
        "etag": f'"{digest}"',
        "content-md5": digest,
        "last-modified": formatdate(time.time(), usegmt=True),
        "x-ms-version": "2023-11-03",
        "x-ms-request-id": secrets.token_hex(8),
    }
