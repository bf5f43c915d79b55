"""An image as a folder: the OCI image layout, which skopeo, podman, crane and others read.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from modelserve.errors import ImageError
from modelserve.image.assembly import Image
from modelserve.image.blob import is_whole
from modelserve.image.repository import INDEX, MANIFEST


def write_layout(image: Image, folder: Path) -> None:
    """Make `folder`, whole or not at all; the layers of the base are fetched.

    Raises:
        ImageError: it is there already, or a layer is damaged.
        RegistryError: a layer of the base cannot be had.
    """
    if folder.exists():
        raise ImageError(f"{str(folder)!r} exists. Name a new folder for the image.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}-"))
    try:
        _fill(image, scratch)
        scratch.chmod(0o755)
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _fill(image: Image, folder: Path) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in image.blobs:
        into = blobs / blob.digest.partition(":")[2]
        shutil.copyfile(blob.bring(), into)
        if not is_whole(into, blob.digest):
            raise ImageError(f"{blob.digest} is damaged where it is kept. Run: modelserve cache clear")
    (blobs / image.digest.partition(":")[2]).write_bytes(image.manifest)
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}), encoding="utf-8")
    entry = {
        "mediaType": MANIFEST,
        "digest": image.digest,
        "size": len(image.manifest),
        "platform": {"architecture": image.platform.architecture, "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": image.tag},
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
