"""The runtime's image, without Docker: a base, a layer of packages, a layer with modelserve.

base ────────── its layers stay where they are, known by digest ─┐
packages ────── wheels for the platform ──► layer ───────────────┼──► configuration ──► manifest
modelserve ──── as installed here ────────► layer ───────────────┘

The same recipe gives the same digest, whenever and wherever it is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from modelserve.image.base import Base, look_up
from modelserve.image.blob import Blob, digest_of
from modelserve.image.credentials import Credentials, configured
from modelserve.image.layer import Layer
from modelserve.image.packages import Pin, pinned
from modelserve.image.platform import Platform
from modelserve.image.product import product_digest, product_layer
from modelserve.image.recipe import Recipe
from modelserve.image.repository import MANIFEST
from modelserve.image.store import in_store
from modelserve.image.wheels import SITE, wheels_layer

CONFIG = "application/vnd.oci.image.config.v1+json"
ENTRY_POINT = ("python", "-m", "modelserve.runtime")
#: Where SageMaker and Vertex AI, Azure ML, and a server by itself listen.
PORTS = (8080, 5001, 8000)
_NO_TIME = "1970-01-01T00:00:00Z"
_KEY_LETTERS = 16
_NOT_OURS = {"Cmd", "Entrypoint", "Healthcheck", "OnBuild"}
_SETTINGS = {
    "MODELSERVE_HOME": "/tmp/modelserve",  # noqa: S108  # the only place that every cloud lets a container write to
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": f"/{SITE}",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image.

    Attributes:
        digest: Of its manifest; by it the image is known everywhere.
        tag: A name that says what is in it.
        manifest: The bytes that `digest` names.
        packages: What is in it, at which versions.
    """

    digest: str
    tag: str
    platform: Platform
    manifest: bytes
    config: Blob
    layers: tuple[Blob, ...]
    packages: tuple[Pin, ...]

    @property
    def blobs(self) -> list[Blob]:
        """What its manifest speaks of."""
        return [*self.layers, self.config]

    @property
    def size_bytes(self) -> int:
        """What is pulled by who has none of its layers."""
        return len(self.manifest) + sum(blob.size_bytes for blob in self.blobs)


def build(
    recipe: Recipe | None = None,
    *,
    credentials: Credentials = configured,
    on_progress: Callable[[str], None] | None = None,
) -> Image:
    """Make the image of `recipe`.

    Args:
        credentials: For the base's registry.

    Raises:
        RegistryError: the base cannot be had.
        ImageError: the packages cannot be had for that platform, or the base is of no use.
    """
    tell = on_progress or (lambda _line: None)
    recipe = recipe or Recipe()
    tell(f"Looking up {recipe.base}")
    base = look_up(recipe.base, recipe.platform, credentials)
    found = recipe.with_base(base.digest, recipe.known_python or base.python)
    pins = pinned(found.extras, found.platform, found.python)
    tell(f"Putting {len(pins)} packages for {found.platform}, Python {found.python}, into a layer")
    wheels = wheels_layer(pins, found.platform, found.python)
    tell("Putting modelserve into a layer")
    return _assembled(found, base, (wheels, product_layer()), pins)


def tag_of(recipe: Recipe, *, credentials: Credentials = configured) -> str:
    """The tag of a recipe's image, without making it; a registry is asked only for what the recipe does not say."""
    if recipe.base.digest and recipe.known_python:
        return _tag(recipe.with_base(recipe.base.digest, recipe.known_python))
    base = look_up(recipe.base, recipe.platform, credentials)
    return _tag(recipe.with_base(base.digest, recipe.known_python or base.python))


def _tag(recipe: Recipe) -> str:
    """Of a recipe whose base and Python are looked up."""
    content = {
        "base": recipe.base.digest,
        "entry_point": ENTRY_POINT,
        "packages": list(map(str, pinned(recipe.extras, recipe.platform, recipe.python))),
        "platform": str(recipe.platform),
        "product": product_digest(),
        "python": recipe.python,
        "settings": _SETTINGS,
        "site": SITE,
    }
    key = digest_of(_json(content)).partition(":")[2]
    return f"{version('modelserve')}-{recipe.platform.architecture}-{key[:_KEY_LETTERS]}"


def _assembled(recipe: Recipe, base: Base, layers: Sequence[Layer], pins: Sequence[Pin]) -> Image:
    config = in_store(CONFIG, _json(_config(recipe, base, layers, pins)))
    blobs = (*base.layers, *(layer.blob for layer in layers))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor,
            "layers": [blob.descriptor for blob in blobs],
        }
    )
    return Image(digest_of(manifest), _tag(recipe), recipe.platform, manifest, config, blobs, tuple(pins))


def _config(recipe: Recipe, base: Base, layers: Sequence[Layer], pins: Sequence[Pin]) -> dict[str, Any]:
    inherited = {key: base.config[key] for key in ("architecture", "os", "variant", "os.version") if key in base.config}
    steps = ("packages of modelserve.runtime", f"modelserve {version('modelserve')}")
    return {
        **inherited,
        "created": _NO_TIME,
        "config": _run_settings(recipe, base.config.get("config") or {}, pins),
        "rootfs": {
            "type": "layers",
            "diff_ids": [*base.config["rootfs"]["diff_ids"], *(layer.diff_id for layer in layers)],
        },
        "history": [
            *_history(base),
            *({"created": _NO_TIME, "created_by": f"modelserve image: {step}"} for step in steps),
        ],
    }


def _history(base: Base) -> list[Mapping[str, Any]]:
    """The base's own, where it fits: as many steps that made a layer as there are layers."""
    history = base.config.get("history") or []
    if sum(not step.get("empty_layer") for step in history) == len(base.layers):
        return list(history)
    return [{"created": _NO_TIME, "created_by": layer.digest} for layer in base.layers]


def _run_settings(recipe: Recipe, inherited: Mapping[str, Any], pins: Sequence[Pin]) -> dict[str, Any]:
    environment = dict(line.partition("=")[::2] for line in inherited.get("Env") or [])
    # What the base would run, and how it would know that it runs well, is not ours.
    kept = {key: value for key, value in inherited.items() if key not in _NOT_OURS}
    return {
        **kept,
        "Entrypoint": list(ENTRY_POINT),
        "Env": [f"{name}={value}" for name, value in {**environment, **_SETTINGS}.items()],
        "ExposedPorts": {f"{port}/tcp": {} for port in PORTS},
        "Labels": {**(inherited.get("Labels") or {}), **_labels(recipe, pins)},
    }


def _labels(recipe: Recipe, pins: Sequence[Pin]) -> dict[str, str]:
    versions = dict(pins)
    return {
        # SageMaker chooses the port where several containers share a machine.
        "com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true",
        "modelserve.onnxruntime": versions["onnxruntime"],
        "modelserve.python": recipe.python,
        "modelserve.version": version("modelserve"),
        # By digest alone: the same base from a mirror gives the same image.
        "org.opencontainers.image.base.digest": recipe.base.digest,
        "org.opencontainers.image.title": "modelserve runtime",
        "org.opencontainers.image.version": version("modelserve"),
    }


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
