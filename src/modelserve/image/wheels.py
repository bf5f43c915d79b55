"""The wheels of the pinned packages for another machine, unpacked as one layer.

pins ──pip download, no resolving, no building──► wheels ──► site-packages of the image
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from modelserve.errors import ImageError, MissingExtraError
from modelserve.image.layer import Entry, Layer, Write, keep
from modelserve.image.packages import Pin
from modelserve.image.platform import Platform

#: Where Python finds them in the image; the base's own packages stay as they are.
SITE = "usr/local/lib/modelserve"
# What a wheel wants elsewhere than among modules: only modules are of use in an image without a shell's user.
_DATA = re.compile(r"[^/]+\.data/(?P<kind>[a-z]+)/(?P<path>.+)")
_MODULES = {"purelib", "platlib"}
_LONGEST_S = 1800


def wheels_layer(pins: Sequence[Pin], platform: Platform, python: str) -> Layer:
    """One layer with these packages, as their makers published them for that machine.

    Raises:
        ImageError: one of them has no wheel for it, or they cannot be downloaded.
    """
    key = f"wheels {platform} {python} {SITE} {' '.join(map(str, pins))}"

    def fill(write: Write) -> None:
        with _downloaded(pins, platform, python) as wheels:
            write(entry for wheel in wheels for entry in _unpacked(wheel))

    return keep(key, fill)


@contextmanager
def _downloaded(pins: Sequence[Pin], platform: Platform, python: str) -> Iterator[list[zipfile.ZipFile]]:
    with tempfile.TemporaryDirectory(prefix="modelserve-wheels-") as scratch, ExitStack() as opened:
        _download(pins, platform, python, Path(scratch))
        yield [opened.enter_context(zipfile.ZipFile(path)) for path in sorted(Path(scratch).glob("*.whl"))]


def _download(pins: Sequence[Pin], platform: Platform, python: str, into: Path) -> None:
    if find_spec("pip") is None:
        raise MissingExtraError('Images need pip, which is not installed here. Install "modelserve[image]".')
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", python, "--dest", str(into)]
    command += [word for tag in platform.wheel_platforms for word in ("--platform", tag)]
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter's own pip, with names from installed packages
            [*command, *map(str, pins)], capture_output=True, text=True, timeout=_LONGEST_S
        )
    except subprocess.TimeoutExpired:
        raise ImageError(f"The packages of the runtime did not come within {_LONGEST_S} s. Try again.") from None
    if done.returncode:
        raise ImageError(
            f"The packages of the runtime could not be downloaded for {platform}, Python {python}: {_reason(done)} "
            "Choose a base with a Python that they have wheels for, or check pip's configuration."
        )


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [f"pip ended with status {done.returncode}."])[-1]


def _unpacked(wheel: zipfile.ZipFile) -> Iterator[Entry]:
    for member in wheel.infolist():
        path = _place(member.filename)
        if path and not member.is_dir():
            is_executable = path.endswith(".so") or ".so." in path or bool(member.external_attr >> 16 & 0o111)
            yield Entry(f"{SITE}/{path}", is_executable, partial(wheel.read, member))


def _place(name: str) -> str:
    """Below the folder of modules; empty for what is left out."""
    data = _DATA.fullmatch(name)
    if data is None:
        return name
    return data["path"] if data["kind"] in _MODULES else ""
