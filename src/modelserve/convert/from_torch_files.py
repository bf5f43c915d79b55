"""Files of PyTorch programs: TorchScript and ExportedProgram, without running what is pickled in them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from modelserve.errors import UnsupportedSourceError


def open_program(path: Path) -> Any:
    """The program in a TorchScript or ExportedProgram file; detection has made sure that it is no pickle."""
    try:
        if _is_exported(path):
            _refuse_pickles(path)
            return torch.export.load(path)
        return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]  # torch's
    except (RuntimeError, OSError, ValueError) as error:
        raise UnsupportedSourceError(f"{str(path)!r} cannot be read by torch: {error}") from error


def _is_exported(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/archive_format") for name in archive.namelist())


def _refuse_pickles(path: Path) -> None:
    """torch.export.load unpickles custom constants, and sample inputs that its safe loader refuses."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            folder, _, file = name.rpartition("/")
            if folder.endswith("data/constants") and file.startswith(("custom_obj", "opaque")):
                raise UnsupportedSourceError(f"{str(path)!r} holds a pickled object ({file}). Give the live program.")
            if folder.endswith("data/sample_inputs"):
                try:
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                except Exception as error:
                    raise UnsupportedSourceError(
                        f"{str(path)!r} holds pickled sample inputs that are not plain tensors. Give the live program."
                    ) from error
