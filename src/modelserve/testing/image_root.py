"""An image as a root of its own: pulled from a registry, unpacked, and a process within it.

Of this machine the process has the kernel, /dev and /proc, and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modelserve import image
from modelserve.image.repository import Repository
from modelserve.image.session import Session

_ENTER = 'mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && shift && exec env -i "$@"'


class ImageRoot:
    """An image's files in a folder.

    Args:
        reference: By digest.
        folder: A new one.

    Attributes:
        settings: How the image is to be run, as its configuration says.
    """

    def __init__(
        self,
        reference: image.Reference,
        folder: Path,
        architecture: str,
        *,
        credentials: image.Credentials = image.anonymous,
    ) -> None:
        for name in ("dev", "proc", "tmp"):
            (folder / name).mkdir(parents=True)
        self.folder = folder
        self.settings = _unpacked(reference, folder, architecture, credentials)

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.settings["Env"])

    def command(self, environment: Mapping[str, str], *command: str) -> list[str]:
        """What starts `command` within it, under these variables beside the image's own.

        Skips the test where this machine does not allow a root of one's own.
        """
        found = self._entering({**self.environment, **environment}, *command)
        probe = self._entering(self.environment, "/usr/local/bin/python", "-c", "import sys; print(sys.prefix)")
        done = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  # fixed words
        if "not permitted" in done.stderr:
            pytest.skip(f"a root of one's own is not allowed here: {done.stderr}")
        assert done.stdout.strip() == "/usr/local", done.stderr
        return found

    def _entering(self, environment: Mapping[str, str], *command: str) -> list[str]:
        unshare, shell, chroot = (
            shutil.which(name, path=f"{os.defpath}:/usr/sbin") for name in ("unshare", "sh", "chroot")
        )
        if not (unshare and shell and chroot):
            pytest.skip("unshare and chroot are not installed")
        mine = [] if os.geteuid() == 0 else ["--map-root-user"]
        said = [f"{name}={value}" for name, value in environment.items()]
        root = str(self.folder)
        return [unshare, "--mount", *mine, "--", shell, "-c", _ENTER, "sh", root, *said, chroot, root, *command]


def _unpacked(
    reference: image.Reference, into: Path, architecture: str, credentials: image.Credentials
) -> dict[str, Any]:
    """Pull an image by its digest, as a cloud does; gives how it is to be run."""
    with Session(reference, credentials) as session:
        repository = Repository(session, reference.repository)
        manifest, _ = repository.manifest(reference.version, image.Platform(architecture))
        config = json.loads(repository.content(manifest["config"]["digest"]))
        for number, layer in enumerate(manifest["layers"]):
            file = into.parent / f"{number}.tar.gz"
            repository.fetch(layer["digest"], file)
            with tarfile.open(file) as tar:
                tar.extractall(into, filter="tar")
    settings: dict[str, Any] = config["config"]
    return settings
