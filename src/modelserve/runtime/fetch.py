"""Fetch a model from where it is stored: a folder here, or a cloud's storage.

fetch("gs://bucket/path", into)  ──►  the fetcher for "gs"  ──►  files below `into`

Another scheme is one more entry in `FETCHERS`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelserve.errors import BackendError, ConfigError, ModelServeError
from modelserve.runtime.fetch_google import fetch_google

Fetcher = Callable[[str, Path], None]


def fetch(uri: str, into: Path) -> Path:
    """Copy what `uri` names into the new folder `into`; all of it or nothing.

    Raises:
        ConfigError: no fetcher knows the scheme, or the address is incomplete.
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
    except Exception as error:  # whatever a network raises; nothing half-fetched is left
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


FETCHERS: dict[str, Fetcher] = {"file": _from_folder, "gs": fetch_google}
