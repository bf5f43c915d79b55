"""A plug-in that is installed without an installer: two text files in a folder of the import path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelserve.plugins import BACKENDS, CONVERTERS


def install_plugin(
    folder: Path,
    *,
    name: str = "fake-plugin",
    backends: Mapping[str, str] | None = None,
    converters: Mapping[str, str] | None = None,
) -> Path:
    """Make `folder`, put on `sys.path`, offer these entry points ("module:object" by name); returns it."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines: list[str] = []
    for group, offers in ((BACKENDS, backends or {}), (CONVERTERS, converters or {})):
        lines += [f"[{group}]", *(f"{offer} = {value}" for offer, value in offers.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
