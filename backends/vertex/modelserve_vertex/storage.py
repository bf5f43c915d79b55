"""Bundles in Cloud Storage, each in a folder of its deployment named by its digest.

    gs://<bucket>/modelserve/<name>/<digest>/{model.onnx, ..., manifest.json}
                                    jobs/        of batch prediction, `batch/files.py`

The manifest goes last, and nothing is ever written over: its presence says that the bundle is whole.
"""

from __future__ import annotations

import contextlib
from typing import Any

from google.api_core import exceptions as google_errors

from modelserve.bundle import Bundle
from modelserve.bundle.manifest import Manifest
from modelserve.bundle.store import MANIFEST
from modelserve.errors import DeploymentNotFoundError
from modelserve_vertex.errors import asking
from modelserve_vertex.google import Google

_FOLDER = "modelserve"
_JOBS = "jobs"


def uri(bucket: str, name: str, digest: str) -> str:
    """Where the bundle of this digest lies, or will lie, for the deployment `name`."""
    return f"gs://{bucket}/{_FOLDER}/{name}/{digest}"


def jobs_folder(name: str) -> str:
    """Below which the files of a deployment's batch jobs lie."""
    return f"{_FOLDER}/{name}/{_JOBS}/"


def deployments(google: Google, bucket: str) -> list[str]:
    """The deployments that have bundles in a bucket; none where there is no such bucket."""
    with asking(f"Listing gs://{bucket}"), contextlib.suppress(google_errors.NotFound):
        listed = google.storage.list_blobs(bucket, prefix=f"{_FOLDER}/", delimiter="/", **google.reading)
        list(listed)  # the folders are known once every page was read
        return sorted(prefix.removeprefix(f"{_FOLDER}/").rstrip("/") for prefix in listed.prefixes)
    return []


class BundleStorage:
    """The bundles of one deployment in one bucket."""

    def __init__(self, google: Google, bucket: str, name: str) -> None:
        self._google = google
        self._bucket_name = bucket
        self._folder = f"{_FOLDER}/{name}"
        self._place = f"gs://{bucket}/{self._folder}"

    def holds(self, digest: str) -> bool:
        """Whether the whole bundle is there."""
        with asking(f"Looking for the bundle in {self._place}"):
            return bool(self._blob(digest, MANIFEST).exists(**self._google.reading))

    def put(self, bundle: Bundle) -> bool:
        """Upload the bundle; what is there already stays, being the same.

        Returns:
            Whether it was this call that made it whole.
        """
        for name in (*bundle.manifest.files, *bundle.manifest.beside):
            self._put_one(bundle, name)
        return self._put_one(bundle, MANIFEST)

    def manifest(self, digest: str) -> Manifest:
        """What the bundle of this digest says of itself.

        Raises:
            DeploymentNotFoundError: it is not there.
        """
        with asking(f"Reading the bundle's manifest in {self._place}"):
            try:
                content = self._blob(digest, MANIFEST).download_as_bytes(**self._google.reading)
            except google_errors.NotFound as error:
                raise DeploymentNotFoundError(
                    f"{self._place} no longer holds the bundle {digest[:12]}, so what its model takes is not known. "
                    "Serve the model again."
                ) from error
        return Manifest.from_json(content)

    def digests(self) -> list[str]:
        """Of the bundles that are there, whole or not; none where there is no such bucket."""
        with asking(f"Listing {self._place}"), contextlib.suppress(google_errors.NotFound):
            blobs = self._google.storage.list_blobs(
                self._bucket_name, prefix=f"{self._folder}/", **self._google.reading
            )
            found = {blob.name.removeprefix(f"{self._folder}/").partition("/")[0] for blob in blobs}
            return sorted(found - {_JOBS})
        return []

    def remove(self, digest: str) -> None:
        """Remove the bundle, its manifest first. Quiet where it is gone already."""
        with asking(f"Removing the bundle {digest[:12]} from {self._place}"):
            prefix = f"{self._folder}/{digest}/"
            found = list(self._google.storage.list_blobs(self._bucket_name, prefix=prefix, **self._google.reading))
            for blob in sorted(found, key=lambda blob: not blob.name.endswith(f"/{MANIFEST}")):
                with contextlib.suppress(google_errors.NotFound):
                    blob.delete(**self._google.reading)

    def _put_one(self, bundle: Bundle, name: str) -> bool:
        """Whether it was not there: another process' upload, or an earlier one that was broken off behind this file."""
        blob = self._blob(bundle.digest, name)
        with asking(f"Uploading {name} to {self._place}"):
            try:
                blob.upload_from_filename(
                    str(bundle.path / name), if_generation_match=0, checksum="crc32c", **self._google.reading
                )
            except google_errors.PreconditionFailed:
                return False
            return True

    def _blob(self, digest: str, name: str) -> Any:
        return self._google.storage.bucket(self._bucket_name).blob(f"{self._folder}/{digest}/{name}")
