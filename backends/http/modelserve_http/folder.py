"""The server's folder of models, where this program can write to it: put a bundle there, and have it loaded."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote

from modelserve.backend import Servable
from modelserve.bundle import Bundle
from modelserve.errors import BundleError, ConfigError, DeploymentNotFoundError, ModelServeError, NotSupportedError
from modelserve_http.options import HttpOptions
from modelserve_http.wire import Wire


class Folder:
    """Models by name, each a bundle below the folder."""

    def __init__(self, path: Path, options: HttpOptions) -> None:
        if not path.is_dir():
            raise ConfigError(f"The option folder names {str(path)!r}, which is not a folder. Name the server's.")
        self._path = path
        self._options = options

    def put(self, name: str, servable: Servable, timeout_s: float | None = None) -> None:
        """Have the server answer for `name` with this model; returns when it does.

        Raises:
            NotSupportedError: it is a live callable.
            ModelServeError: it could not be loaded; what was there before is there again.
        """
        if not isinstance(servable, Bundle):
            raise NotSupportedError(
                f"A server runs portable models only: {servable.reason} Serve it on a local target."
            )
        place = self._place(name)
        if self._digest(place) == servable.digest:
            self._tell("load", name, timeout_s)
            return
        scratch = Path(tempfile.mkdtemp(dir=self._path, prefix=".making-"))
        try:
            shutil.copytree(servable.path, scratch / "new")
            if place.exists():
                place.rename(scratch / "old")
            (scratch / "new").rename(place)
            try:
                self._tell("load", name, timeout_s)
            except ModelServeError:
                place.rename(scratch / "failed")
                if (scratch / "old").exists():
                    (scratch / "old").rename(place)
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Have the server forget the model. Quiet when it is gone already."""
        place = self._place(name)
        with contextlib.suppress(DeploymentNotFoundError):
            self._tell("unload", name)
        shutil.rmtree(place, ignore_errors=True)

    def _place(self, name: str) -> Path:
        if Path(name).name != name or name.startswith("."):
            raise ConfigError(f"{name!r} is no name for a model. Use letters, digits, '.', '_' and '-'.")
        return self._path / name

    def _digest(self, place: Path) -> str:
        try:
            return Bundle.open(place, verify=False).digest
        except BundleError:
            return ""

    def _tell(self, verb: str, name: str, timeout_s: float | None = None) -> None:
        wire = Wire(self._options)
        try:
            wire.call("POST", f"/v2/repository/models/{quote(name, safe='')}/{verb}", json={}, timeout_s=timeout_s)
        finally:
            wire.close()
