"""Cloud Storage: objects on disk, and what the client library asks of them over the JSON API.

Own, because the emulator that exists answers `ifGenerationMatch=0` as if it were not there, and uploads that never
write over what stands are what the backend relies on. https://cloud.google.com/storage/docs/json_api/v1
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import google_crc32c

from modelserve.standin.loopback import Answered, Exchange

_OBJECT = re.compile(r"(/download|/upload)?/storage/v1/b/(?P<bucket>[^/]+)/o(/(?P<name>.+))?")
_BUCKET = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)(?P<what>/iam/testPermissions|/storageLayout)?")
_RANGE = re.compile(r"bytes=(?P<first>\d+)-(?P<last>\d*)")
_CONTENT_RANGE = re.compile(r"bytes ((?P<first>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")


@dataclass(frozen=True, slots=True)
class Stored:
    """One object."""

    path: Path
    generation: int
    crc32c: str
    md5: str
    size_bytes: int


class Objects:
    """Objects by bucket and name."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="modelserve-storage-", ignore_cleanup_errors=True)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._buckets: dict[str, dict[str, Stored]] = {}
        self.regions: dict[str, str] = {}

    def add_bucket(self, bucket: str, region: str) -> None:
        with self._lock:
            self._buckets.setdefault(bucket, {})
            self.regions[bucket] = region

    def has_bucket(self, bucket: str) -> bool:
        return bucket in self._buckets

    def put(self, bucket: str, name: str, content: bytes, *, if_absent: bool = False) -> Stored | None:
        """Store it; None where it is there already and must not be."""
        number = next(self._numbers)
        path = Path(self._folder.name) / str(number)
        path.write_bytes(content)
        crc32c = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        stored = Stored(path, number, crc32c, md5, len(content))
        with self._lock:
            if if_absent and name in self._buckets[bucket]:
                path.unlink()
                return None
            self._buckets[bucket][name] = stored
        return stored

    def find(self, bucket: str, name: str) -> Stored | None:
        return self._buckets.get(bucket, {}).get(name)

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        with self._lock:
            return sorted(name for name in self._buckets.get(bucket, {}) if name.startswith(prefix))

    def remove(self, bucket: str, name: str) -> bool:
        with self._lock:
            stored = self._buckets.get(bucket, {}).pop(name, None)
        if stored is not None:
            stored.path.unlink(missing_ok=True)
        return stored is not None

    def copy_folder(self, bucket: str, prefix: str, to_bucket: str, to_prefix: str) -> int:
        """Copy what lies below a prefix; how many objects that were."""
        self.add_bucket(to_bucket, "")
        found = self.names(bucket, prefix)
        for name in found:
            stored = self.find(bucket, name)
            assert stored is not None
            self.put(to_bucket, to_prefix + name.removeprefix(prefix), stored.path.read_bytes())
        return len(found)

    def remove_folder(self, bucket: str, prefix: str) -> None:
        for name in self.names(bucket, prefix):
            self.remove(bucket, name)

    def close(self) -> None:
        self._folder.cleanup()


class StorageApi:
    """The JSON API over the objects."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._uploads: dict[str, tuple[str, str, bool, bytearray]] = {}

    def operation(self, exchange: Exchange) -> str | None:
        """The name under which faults know a request; None where it is none of this API's."""
        path = exchange.raw_path.partition("?")[0]
        if _BUCKET.fullmatch(path):
            return "storage.buckets.get"
        match = _OBJECT.fullmatch(path)
        if match is None:
            return None
        if exchange.method in {"POST", "PUT"}:
            return "storage.objects.insert"
        if exchange.method == "DELETE":
            return "storage.objects.delete"
        return "storage.objects.get" if match["name"] else "storage.objects.list"

    def answer(self, exchange: Exchange) -> Answered:
        path = exchange.raw_path.partition("?")[0]
        if (match := _BUCKET.fullmatch(path)) is not None:
            return self._bucket(match["bucket"], match["what"] or "", exchange)
        match = _OBJECT.fullmatch(path)
        assert match is not None
        bucket, name = match["bucket"], unquote(match["name"] or "")
        if not self._objects.has_bucket(bucket):
            return _error(404, f"The specified bucket does not exist: {bucket}.")
        if path.startswith("/upload/"):
            return self._upload(bucket, exchange)
        if exchange.method == "GET":
            return self._read(bucket, name, exchange) if name else self._list(bucket, exchange)
        if exchange.method == "DELETE":
            return Answered(204) if self._objects.remove(bucket, name) else _missing(bucket, name)
        return _error(405, f"{exchange.method} is not answered here.")

    def _bucket(self, bucket: str, what: str, exchange: Exchange) -> Answered:
        if not self._objects.has_bucket(bucket):
            return _error(404, f"The specified bucket does not exist: {bucket}.")
        if what == "/iam/testPermissions":
            return _json({"permissions": exchange.query.get("permissions", [])})
        return _json({"kind": "storage#bucket", "name": bucket, "location": self._objects.regions[bucket].upper()})

    def _list(self, bucket: str, exchange: Exchange) -> Answered:
        prefix = _first(exchange, "prefix")
        delimiter = _first(exchange, "delimiter")
        items, prefixes = [], set()
        for name in self._objects.names(bucket, prefix):
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                items.append(self._described(bucket, name))
        return _json({"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def _read(self, bucket: str, name: str, exchange: Exchange) -> Answered:
        stored = self._objects.find(bucket, name)
        if stored is None:
            return _missing(bucket, name)
        if _first(exchange, "alt") != "media":
            return _json(self._described(bucket, name))
        content = stored.path.read_bytes()
        headers = {
            "content-type": "application/octet-stream",
            "x-goog-hash": f"crc32c={stored.crc32c},md5={stored.md5}",
            "x-goog-generation": str(stored.generation),
        }
        match = _RANGE.fullmatch(exchange.headers.get("range", ""))
        if match is None:
            return Answered(200, content, headers)
        first, last = int(match["first"]), int(match["last"] or len(content) - 1)
        if first >= max(1, len(content)):
            return _error(416, "The requested range cannot be satisfied.")
        part = content[first : last + 1]
        headers["content-range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return Answered(206, part, headers)

    def _upload(self, bucket: str, exchange: Exchange) -> Answered:
        kind = _first(exchange, "uploadType")
        if_absent = _first(exchange, "ifGenerationMatch") == "0"
        if kind == "multipart":
            described, content = _parts(exchange)
            return self._stored(bucket, described["name"], content, if_absent=if_absent)
        if kind == "resumable" and exchange.method == "POST":
            name = json.loads(exchange.body or b"{}").get("name") or _first(exchange, "name")
            token = f"upload-{len(self._uploads) + 1}"
            self._uploads[token] = (bucket, name, if_absent, bytearray())
            return Answered(200, b"", {"location": f"{_own_address(exchange)}&upload_id={token}"})
        return self._resumed(_first(exchange, "upload_id"), exchange)

    def _resumed(self, token: str, exchange: Exchange) -> Answered:
        if token not in self._uploads:
            return _error(404, "There is no such upload.")
        bucket, name, if_absent, held = self._uploads[token]
        match = _CONTENT_RANGE.fullmatch(exchange.headers.get("content-range", f"bytes 0-0/{len(exchange.body)}"))
        if match is None:
            return _error(400, "The header Content-Range is not understood.")
        held += exchange.body
        if match["total"] == "*" or len(held) < int(match["total"]):
            return Answered(308, b"", {"range": f"bytes=0-{len(held) - 1}"} if held else {})
        del self._uploads[token]
        return self._stored(bucket, name, bytes(held), if_absent=if_absent)

    def _stored(self, bucket: str, name: str, content: bytes, *, if_absent: bool) -> Answered:
        if self._objects.put(bucket, name, content, if_absent=if_absent) is None:
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        return _json(self._described(bucket, name))

    def _described(self, bucket: str, name: str) -> dict[str, Any]:
        stored = self._objects.find(bucket, name)
        assert stored is not None
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "id": f"{bucket}/{name}/{stored.generation}",
            "generation": str(stored.generation),
            "metageneration": "1",
            "size": str(stored.size_bytes),
            "crc32c": stored.crc32c,
            "md5Hash": stored.md5,
        }


def _parts(exchange: Exchange) -> tuple[dict[str, Any], bytes]:
    """The two parts of a multipart upload: what the object is, and what it holds."""
    boundary = exchange.headers["content-type"].partition("boundary=")[2].strip("\"'").encode()
    _, first, second, _ = exchange.body.split(b"--" + boundary, 3) if exchange.body.count(boundary) == 3 else _few()
    described = json.loads(first.partition(b"\r\n\r\n")[2])
    return described, second.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


def _few() -> tuple[bytes, bytes, bytes, bytes]:
    raise ValueError("A multipart upload has two parts.")


def _own_address(exchange: Exchange) -> str:
    return f"http://{exchange.headers['host']}{exchange.raw_path}"


def _first(exchange: Exchange, name: str) -> str:
    return exchange.query.get(name, [""])[0]


def _missing(bucket: str, name: str) -> Answered:
    return _error(404, f"No such object: {bucket}/{name}")


def _error(status: int, message: str) -> Answered:
    return _json({"error": {"code": status, "message": message, "errors": [{"message": message}]}}, status)


def _json(content: Any, status: int = 200) -> Answered:
    return Answered(status, json.dumps(content).encode(), {"content-type": "application/json; charset=UTF-8"})
