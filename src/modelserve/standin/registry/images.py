"""Images for a registry of this machine: any, and one that holds this machine's own Python.

Where no public registry can be reached, this Python is a base as good as another: its interpreter, its standard library
and the system's libraries that they and onnxruntime ask for, and nothing else.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modelserve.image.layer import Entry, Layer, keep
from modelserve.standin.registry.contents import digest_of
from modelserve.standin.registry.server import RegistryStandIn

_CONFIG = "application/vnd.docker.container.image.v1+json"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LINKED = re.compile(r"(/\S+) \(0x")
_NOT_NEEDED = {"__pycache__", "ensurepip", "idlelib", "site-packages", "test", "tkinter", "turtledemo"}


def put_image(
    registry: RegistryStandIn,
    repository: str,
    tag: str,
    layers: Mapping[str, Sequence[Layer]],
    *,
    environment: Sequence[str] = (),
) -> str:
    """Have the registry hold an image of several platforms, in Docker's own kinds of documents, as public bases are.

    Args:
        layers: By architecture.

    Returns:
        The digest of its list of manifests.
    """
    entries = []
    for architecture, found in layers.items():
        manifest = _manifest(registry, repository, architecture, found, environment)
        digest = registry.contents.put_manifest(repository, digest_of(manifest), _MANIFEST, manifest)
        entries.append(
            {
                "mediaType": _MANIFEST,
                "digest": digest,
                "size": len(manifest),
                "platform": {"architecture": architecture, "os": "linux"},
            }
        )
    index = _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries})
    return registry.contents.put_manifest(repository, tag, _INDEX, index)


def put_this_python(registry: RegistryStandIn, repository: str, tag: str) -> str:
    """A base with the Python of this machine, for this machine's processor; gives its digest."""
    version = platform.python_version()
    layer = keep(f"this python {sys.executable} {version}", lambda write: write(_this_python()), level=1)
    environment = (f"PYTHON_VERSION={version}", "PATH=/usr/local/bin:/usr/bin:/bin")
    layers = {_ARCHITECTURES[platform.machine()]: (layer,)}
    return put_image(registry, repository, tag, layers, environment=environment)


def _manifest(
    registry: RegistryStandIn, repository: str, architecture: str, layers: Sequence[Layer], environment: Sequence[str]
) -> bytes:
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["python"], "Env": list(environment)},
            "history": [{"created_by": "a base"} for _ in layers],
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    blobs = registry.contents.blobs
    blobs[repository, digest_of(config)] = config
    for layer in layers:
        blobs[repository, layer.blob.digest] = layer.blob.bring().read_bytes()
    listed = [{**layer.blob.descriptor, "mediaType": _LAYER} for layer in layers]
    named = {"mediaType": _CONFIG, "digest": digest_of(config), "size": len(config)}
    return _json({"schemaVersion": 2, "mediaType": _MANIFEST, "config": named, "layers": listed})


def _this_python() -> Iterator[Entry]:
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    modules = [path for path in sorted(library.rglob("*")) if path.is_file() and not _NOT_NEEDED & set(path.parts)]
    linked = _linked([interpreter, *(path for path in modules if path.suffix == ".so"), *_onnxruntime()])
    yield Entry("usr/local/bin/python", True, interpreter.read_bytes)
    for path in modules:
        place = f"usr/local/lib/{library.name}/{path.relative_to(library)}"
        yield Entry(place, path.suffix == ".so", path.read_bytes)
    for path in linked:
        yield Entry(str(path).lstrip("/"), True, path.read_bytes)
    yield Entry("tmp/.here", False, partial(bytes))


def _onnxruntime() -> list[Path]:
    """Its own files ask for the libraries of C++, which Python alone does without."""
    spec = find_spec("onnxruntime")
    folders = [] if spec is None else map(Path, spec.submodule_search_locations or ())
    return [path for folder in folders for path in sorted((folder / "capi").glob("*.so"))]


def _linked(files: Sequence[Path]) -> list[Path]:
    """The system's libraries that these ask for, where the loader finds them."""
    done = subprocess.run(  # noqa: S603  # the system's own tool, on files of this Python
        ["ldd", *map(str, files)],  # noqa: S607  # wherever the system has it
        capture_output=True,
        text=True,
        check=False,
    )
    return sorted({Path(found) for found in _LINKED.findall(done.stdout) if "site-packages" not in found})


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
