"""A report as a picture: placeholder until written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot(report: Mapping[str, Any]) -> str:
    return ""


def plot_image(report: Mapping[str, Any], path: Path) -> None:
    pass
