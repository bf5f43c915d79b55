"""One copy of the weights where workers are not forked: optimised once for this host, then mapped by all.

    bundle ──► a process of its own: optimise, pack, write ──► MODELSERVE_HOME/mapped/KEY/ ──► workers map it

onnxruntime packs weights for the processor when it loads a model, each process into memory of its own. Written down
once in packed form, they are pages of a file that all workers share. The result fits this processor and this version of
onnxruntime only, so it is a cache beside the bundle and never travels with one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from modelserve.bundle import Bundle
from modelserve.home import home

_log = logging.getLogger(__name__)

_MODEL = "model.onnx"
_WEIGHTS = "model.onnx.data"
_LONGEST_S = 600.0
_SHARED_FROM_BYTES = 1024


def mapped_model(bundle: Bundle) -> Path | None:
    """The file that workers load instead of the bundle's; made now where it is not there yet.

    None where there are no weights to speak of (those of trees are part of the graph), or where it cannot be made:
    the workers then load the bundle itself.
    """
    if bundle.weights_path is None:
        return None
    folder = home() / "mapped" / _key(bundle)
    if not (folder / _MODEL).exists():
        try:
            _make(bundle, folder)
        except (OSError, subprocess.SubprocessError) as error:
            _log.warning("Each worker keeps a copy of the weights, because they could not be written once: %s", error)
            return None
    return folder / _MODEL


def _make(bundle: Bundle, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        # A process of its own: what optimising takes of memory is gone with it.
        done = subprocess.run(  # noqa: S603  # our own module, by our own interpreter
            [sys.executable, "-m", __name__, str(bundle.path.absolute()), str(scratch)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )
        if done.returncode:
            raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "onnxruntime ended.")
        try:
            scratch.rename(folder)
        except OSError:
            if not (folder / _MODEL).exists():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _key(bundle: Bundle) -> str:
    about = (bundle.digest, version("onnxruntime"), _processor())
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _processor() -> str:
    """What the packing depends on: the instructions that this processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def main() -> None:
    """Entry point of `python -m modelserve.runtime.mapping BUNDLE FOLDER`."""
    from modelserve.session import optimize_for_mapping

    bundle = Bundle.open(sys.argv[1], verify=False)
    optimize_for_mapping(bundle, Path(sys.argv[2]) / _MODEL, weights=_WEIGHTS, from_bytes=_SHARED_FROM_BYTES)


if __name__ == "__main__":
    main()
