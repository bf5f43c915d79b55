"""Write docs/reference/clouds.md from what the installed backends declare: python write_clouds.py [FILE]."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from modelserve import plugins
from modelserve.backend import Backend, Capability, Support, load_backend

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "clouds.md"
_TITLES = {"local": "local", "sagemaker": "Amazon SageMaker", "vertex": "Google Vertex AI", "azureml": "Azure ML"}
_SHOWN = {Support.FULL: "yes", Support.NOT_IMPLEMENTED: "not implemented", Support.IMPOSSIBLE: "impossible"}


def page(backends: Iterable[type[Backend]]) -> str:
    """The page for these backends, one column each."""
    found = list(backends)
    titles = [_TITLES.get(backend.name, backend.name) for backend in found]
    lines = [
        "# The places side by side",
        "",
        "Written by `make clouds` from what the backends declare, and held against that by a test.",
        "A test of the conformance suite is skipped only by what stands here.",
        "",
        "| capability | " + " | ".join(titles) + " |",
        "|---|" + "---|" * len(found),
    ]
    lines += [
        f"| {capability.value} | "
        + " | ".join(_SHOWN[backend.support.get(capability, Support.NOT_IMPLEMENTED)] for backend in found)
        + " |"
        for capability in Capability
    ]
    lines += [
        "",
        "*impossible*: the place itself cannot do that.",
        "*not implemented*: it could, and modelserve does not do it yet.",
        "",
        "## Options",
        "",
    ]
    for title, backend in zip(titles, found, strict=True):
        lines += [f"### {title}", "", "| option | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {meaning.replace('|', '&#124;')} |" for name, meaning in backend.options.items()]
        lines.append("")
    return "\n".join(lines)


def installed() -> list[type[Backend]]:
    """The places that the page is about, as far as they are installed, in its order."""
    names = plugins.names(plugins.BACKENDS)
    return [load_backend(name) for name in _TITLES if name in names]


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(page(installed()), encoding="utf-8")
