"""Fetch a model from Cloud Storage with the standard library alone, so that the container's image needs no more.

The token is the machine's own, from its metadata server. https://cloud.google.com/storage/docs/json_api/v1
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from modelserve.errors import BackendError

_STORAGE = "https://storage.googleapis.com"
_TOKENS = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
#: The client libraries' own variable for a stand-in, which is asked without a token.
_EMULATOR = "STORAGE_EMULATOR_HOST"
_TOKEN_S = 10.0
_READ_S = 300.0


def fetch_google(uri: str, into: Path) -> None:
    """Copy what lies below gs://bucket/folder into the folder `into`."""
    parts = urlsplit(uri)
    folder = parts.path.strip("/")
    storage = _Storage()
    for name in storage.names(parts.netloc, f"{folder}/" if folder else ""):
        if name.endswith("/"):
            continue
        below = PurePosixPath(name).relative_to(folder) if folder else PurePosixPath(name)
        if below.is_absolute() or ".." in below.parts:
            raise BackendError(f"{uri!r} holds {name!r}, which would lie outside of its folder.")
        target = into / below
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.download(parts.netloc, name, target)


class _Storage:
    """Cloud Storage, or its stand-in."""

    def __init__(self) -> None:
        emulator = os.environ.get(_EMULATOR, "").rstrip("/")
        self._address = emulator or _STORAGE
        self._headers = {} if emulator else {"Authorization": f"Bearer {_token()}"}

    def names(self, bucket: str, prefix: str) -> Iterator[str]:
        page = ""
        while True:
            query = urlencode({"prefix": prefix, "fields": "items(name),nextPageToken", "pageToken": page})
            with self._open(f"/storage/v1/b/{quote(bucket, safe='')}/o?{query}") as answer:
                content = json.load(answer)
            yield from (item["name"] for item in content.get("items", []))
            page = content.get("nextPageToken", "")
            if not page:
                return

    def download(self, bucket: str, name: str, target: Path) -> None:
        path = f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}?alt=media"
        with self._open(path) as answer, target.open("wb") as file:
            shutil.copyfileobj(answer, file)
            if answer.length:  # what was announced and did not come
                raise BackendError(f"gs://{bucket}/{name} was cut short by {answer.length} bytes. Start again.")

    def _open(self, path: str) -> Any:
        return _opened(self._address + path, self._headers, _READ_S)


def _token() -> str:
    with _opened(_TOKENS, {"Metadata-Flavor": "Google"}, _TOKEN_S) as answer:
        return str(json.load(answer)["access_token"])


def _opened(address: str, headers: dict[str, str], timeout_s: float) -> Any:
    request = urllib.request.Request(address, headers=headers)  # noqa: S310  # both addresses begin with http
    return urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310  # as above
