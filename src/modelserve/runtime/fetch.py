"""Fetch a model from where it is stored: a folder here, or a cloud's storage by that cloud's own library.

fetch("gs://bucket/path", into)  ──►  the fetcher for "gs"  ──►  files below `into`

A cloud's library is imported by its fetcher only; another scheme is one more entry in `FETCHERS`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from modelserve.errors import BackendError, ConfigError, MissingExtraError, ModelServeError

Fetcher = Callable[[str, Path], None]


def fetch(uri: str, into: Path) -> Path:
    """Copy what `uri` names into the new folder `into`; all of it or nothing.

    Raises:
        ConfigError: no fetcher knows the scheme, or the address is incomplete.
        MissingExtraError: the library that it needs is not installed.
        BackendError: it could not be fetched.
    """
    scheme = urlsplit(uri).scheme or "file"
    fetcher = FETCHERS.get(scheme)
    if fetcher is None:
        raise ConfigError(f"Nothing here fetches {scheme}://; known are {', '.join(FETCHERS)}.")
    into.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=into.parent, prefix=".fetching-"))
    try:
        work = scratch / "model"
        work.mkdir()
        fetcher(uri, work)
        if not any(work.iterdir()):
            raise BackendError(f"There is nothing at {uri!r}. Upload the bundle's files there first.")
        work.rename(into)
    except ModelServeError:
        raise
    except Exception as error:  # a cloud's library raises classes of its own, which this room does not know
        raise BackendError(f"{uri!r} could not be fetched ({type(error).__name__}: {error}).") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return into


def _from_folder(uri: str, into: Path) -> None:
    parts = urlsplit(uri)
    source = Path(unquote(parts.path) if parts.scheme else uri)
    if not source.is_dir():
        raise ConfigError(f"{str(source)!r} is not a folder.")
    shutil.copytree(source, into, dirs_exist_ok=True)


def _from_google(uri: str, into: Path) -> None:
    try:
        from google.cloud import storage
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            'Fetching gs:// needs google-cloud-storage. Install it with: pip install "modelserve[vertex]"'
        ) from error
    parts = urlsplit(uri)
    prefix = parts.path.strip("/")
    client = storage.Client()
    for blob in client.list_blobs(parts.netloc, prefix=f"{prefix}/" if prefix else None):
        name = PurePosixPath(blob.name).relative_to(prefix) if prefix else PurePosixPath(blob.name)
        if blob.name.endswith("/"):
            continue
        if name.is_absolute() or ".." in name.parts:
            raise BackendError(f"{uri!r} holds {blob.name!r}, which would lie outside of its folder.")
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(str(target))


FETCHERS: dict[str, Fetcher] = {"file": _from_folder, "gs": _from_google}
