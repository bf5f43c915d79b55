"""The first thing in a container's process: `python -m modelserve.standin.launch [--mount FOLDER AT] COMMAND...`.

It ends with its parent, sees a folder where the cloud mounts it, and then becomes COMMAND.
A mount is seen by this process alone (a mount namespace), where the platform allows that.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the command."""
    _end_with_parent()
    os.execvp(arguments[0], arguments)  # noqa: S606  # the command of whoever stands in for a cloud; no shell


def command(folder: Path | None, at: str, program: list[str]) -> list[str]:
    """The command line that starts `program`, with `folder` seen as `at` where it can be (see `can_mount`)."""
    launched = [sys.executable, "-m", "modelserve.standin.launch", *program]
    if folder is None:
        return launched
    root = str(Path(*Path(at).parts[:2]))
    script = f'mount -t tmpfs tmpfs {root} && mkdir -p {at} && mount --bind "$1" {at} && shift && exec "$@"'
    return [*_unshare(), "sh", "-c", script, "sh", str(folder), *launched]


@lru_cache(maxsize=8)
def can_mount(at: str) -> bool:
    """Whether a process of its own can see a folder at `at`, and still finds its interpreter and packages."""
    root = Path(*Path(at).parts[:2])
    needed = [sys.prefix, sys.base_prefix, sys.executable, *filter(None, sys.path)]
    hides = any(Path(path).resolve().is_relative_to(root) for path in needed)
    if hides or not root.is_dir() or not _unshare():
        return False
    script = f"mount -t tmpfs tmpfs {root} && mkdir -p {at}"
    try:
        done = subprocess.run([*_unshare(), "sh", "-c", script], capture_output=True, timeout=10, check=False)  # noqa: S603  # fixed words
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@lru_cache(maxsize=1)
def _unshare() -> list[str]:
    """How to get a mount namespace: as root plainly, otherwise with a user namespace around it."""
    program = shutil.which("unshare")
    if program is None or not sys.platform.startswith("linux"):
        return []
    return [program, "--mount", "--propagation", "private", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def _end_with_parent() -> None:
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
