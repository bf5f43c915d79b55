"""The registry on a socket of this machine, with the ways in which real ones differ, and those in which they fail."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, urlsplit

from modelserve.standin.registry.access import Access, Door
from modelserve.standin.registry.contents import Contents, Refusal, check_name, check_range, digest_of, stands_at

_PATH = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs|blobs/uploads|tags)/(?P<rest>[^/]*)")
_PIECE = 1 << 16
_OCTETS = "application/octet-stream"


class Asked(NamedTuple):
    """One request that came, with how much of its body was read."""

    method: str
    path: str
    body_bytes: int


class Answer(NamedTuple):
    """What the registry says."""

    status: int
    content: bytes = b""
    headers: dict[str, str] | None = None


class RegistryStandIn:
    """A registry, for as long as `with` lasts.

    Args:
        door: How it asks who calls.
        mounts: Whether it takes blobs over from a neighbouring repository; ECR does only where an account asked for it.
        chunks: Whether it takes a blob in chunks; ECR and Artifact Registry do not.
        most_bytes: The largest body that it takes; Azure Container Registry takes some 20 MB.
        repositories: Those that exist; None makes them as they are pushed to.
    """

    def __init__(
        self,
        *,
        door: Door = Door.OPEN,
        mounts: bool = True,
        chunks: bool = True,
        most_bytes: int | None = None,
        repositories: set[str] | None = None,
    ) -> None:
        self.contents = Contents()
        self.access = Access(door)
        self.mounts = mounts
        self.chunks = chunks
        self.most_bytes = most_bytes
        self.repositories = repositories
        self.asked: list[Asked] = []
        self._failing: list[tuple[str, int | None, int]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.registry = self  # type: ignore[attr-defined]  # what a handler of the standard library is given
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        """Such as 127.0.0.1:5000: the first part of an image's name."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def fail(self, method: str, status: int, *, times: int = 1) -> None:
        """Answer the next requests of this method so."""
        self._failing += [(method, status, 0)] * times

    def break_off(self, method: str, after_bytes: int, *, times: int = 1) -> None:
        """Cut the connection of the next requests of this method, after so much of their body."""
        self._failing += [(method, None, after_bytes)] * times

    def failing(self, method: str) -> tuple[int | None, int] | None:
        """What is to go wrong with this request: a status, or None and where it is cut; used up by asking."""
        with self.contents.lock:
            found = next((entry for entry in self._failing if entry[0] == method), None)
            if found is None:
                return None
            self._failing.remove(found)
        return found[1], found[2]

    def __enter__(self) -> RegistryStandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _CutError(Exception):
    """The connection is to end here, without a word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write an answer: without it the kernel waits for more before it sends the rest.
    wbufsize = -1

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, _CutError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """A stand-in writes nothing by itself."""

    def do_HEAD(self) -> None:
        self._answered(self._get)

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def do_PATCH(self) -> None:
        self._answered(self._patch)

    def do_PUT(self) -> None:
        self._answered(self._put)

    def _answered(self, handler: Callable[[], Answer]) -> None:
        self.registry: RegistryStandIn = self.server.registry  # type: ignore[attr-defined]  # set beside the server
        self.contents = self.registry.contents
        self.read_bytes = 0
        try:
            answer = self._found(urlsplit(self.path), handler)
        except Refusal as refusal:
            # What is left of the body would be read as the next request.
            self.close_connection = True
            content = {"errors": [{"code": refusal.code, "message": str(refusal)}]}
            headers = {"Content-Type": "application/json", "Connection": "close", **refusal.headers}
            answer = Answer(refusal.status, json.dumps(content).encode(), headers)
        finally:
            self.registry.asked.append(Asked(self.command, self.path, self.read_bytes))
        self._say(answer)

    def _found(self, parts: SplitResult, handler: Callable[[], Answer]) -> Answer:
        self.query = parts.query
        self.cut_at = self._fault()
        if parts.path == "/token":
            return self._token()
        if parts.path.rstrip("/") == "/v2":
            return Answer(200)
        self._route(parts.path)
        return handler()

    def _fault(self) -> int | None:
        fault = self.registry.failing(self.command)
        if fault is None:
            return None
        if fault[0] is not None:
            raise Refusal(fault[0], "TOOMANYREQUESTS" if fault[0] == 429 else "UNKNOWN", "on purpose")
        return fault[1]

    def _route(self, path: str) -> None:
        match = _PATH.fullmatch(path)
        if match is None:
            raise Refusal(404, "UNSUPPORTED", f"there is no {path}")
        self.repository, self.kind, self.rest = check_name(match["repository"]), match["kind"], match["rest"]
        action = "pull" if self.command in {"GET", "HEAD"} and self.kind != "blobs/uploads" else "push"
        self.registry.access.check(self.headers.get("authorization", ""), self.registry.url, self.repository, action)
        known = self.registry.repositories
        if known is not None and self.repository not in known:
            raise Refusal(404, "NAME_UNKNOWN", f"there is no repository {self.repository}")

    def _get(self) -> Answer:
        if self.kind == "blobs/uploads":
            upload = self.contents.upload(self.repository, self.rest, None)
            headers = {"Range": stands_at(upload), "Location": self.contents.address(self.rest)}
            return Answer(204, headers=headers)
        if self.kind == "tags":
            tags = sorted(name for repository, name in self.contents.manifests if repository == self.repository)
            listed = [tag for tag in tags if not tag.startswith("sha256:")]
            return Answer(200, json.dumps({"name": self.repository, "tags": listed}).encode())
        media_type, content = _OCTETS, b""
        if self.kind == "blobs":
            content = self.contents.blob(self.repository, self.rest)
        else:
            accepted = self.headers.get("accept", "*/*")
            media_type, content = self.contents.manifest(self.repository, self.rest, accepted)
        return Answer(200, content, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(content)})

    def _post(self) -> Answer:
        asked = self._asked()
        self._body()
        mount, source = asked.get("mount", ""), asked.get("from", "")
        if mount and self.registry.mounts and self.contents.mounts(self.repository, mount, source):
            location = f"/v2/{self.repository}/blobs/{mount}"
            return Answer(201, headers={"Location": location, "Docker-Content-Digest": mount})
        return Answer(202, headers={"Location": self.contents.begin(self.repository), "Range": "0-0"})

    def _patch(self) -> Answer:
        if not self.registry.chunks:
            raise Refusal(405, "UNSUPPORTED", "this registry takes a blob at once")
        upload = self.contents.upload(self.repository, self.rest, self._asked().get("state", ""))
        if self.headers.get("content-type") != _OCTETS:
            raise Refusal(415, "BLOB_UPLOAD_INVALID", f"a chunk is {_OCTETS}")
        check_range(upload, self.headers.get("content-range", ""), self._length())
        self._body(upload.content)
        location = self.contents.address(self.rest)
        return Answer(202, headers={"Location": location, "Range": stands_at(upload)})

    def _put(self) -> Answer:
        if self.kind == "manifests":
            media_type = self.headers.get("content-type", "")
            digest = self.contents.put_manifest(self.repository, self.rest, media_type, self._body())
            location = f"/v2/{self.repository}/manifests/{digest}"
            return Answer(201, headers={"Location": location, "Docker-Content-Digest": digest})
        asked = self._asked()
        upload = self.contents.upload(self.repository, self.rest, asked.get("state", ""))
        self._body(upload.content)
        self.contents.finish(self.rest, asked.get("digest", ""))
        location = f"/v2/{self.repository}/blobs/{asked['digest']}"
        return Answer(201, headers={"Location": location, "Docker-Content-Digest": asked["digest"]})

    def _token(self) -> Answer:
        query = self.query if self.command == "GET" else self._body().decode()
        token = self.registry.access.token(self.headers.get("authorization", ""), query)
        return Answer(200, json.dumps({"token": token, "access_token": token}).encode())

    def _asked(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.query).items()}

    def _length(self) -> int:
        text = self.headers.get("content-length", "")
        if not text.isdecimal():
            raise Refusal(411, "SIZE_INVALID", "Content-Length is needed")
        most = self.registry.most_bytes
        if most is not None and int(text) > most:
            raise Refusal(413, "SIZE_INVALID", f"at most {most} bytes at once")
        return int(text)

    def _body(self, into: bytearray | None = None) -> bytes:
        """Read the body; a connection that breaks leaves in `into` what came."""
        content = bytearray() if into is None else into
        left = self._length()
        while left:
            if self.cut_at is not None and self.read_bytes >= self.cut_at:
                raise _CutError
            wanted = min(left, _PIECE, left if self.cut_at is None else self.cut_at - self.read_bytes)
            piece = self.rfile.read(wanted)
            if not piece:
                raise _CutError
            content += piece
            self.read_bytes += len(piece)
            left -= len(piece)
        if self.cut_at is not None:
            raise _CutError
        return bytes(content) if into is None else b""

    def _say(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in (answer.headers or {}).items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)
        self.wfile.flush()
