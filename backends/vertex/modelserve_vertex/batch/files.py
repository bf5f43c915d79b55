"""The files of one job, below its deployment's folder.

    gs://<bucket>/modelserve/<deployment>/jobs/<job>/input/<part>-<rows>.jsonl     written here
                                                     output/prediction-.../...     written by the service

How many rows a part has stands in its name, so that one that is not answered whole is known.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.api_core import exceptions as google_errors

from modelserve.backend import WorkPart
from modelserve_vertex import storage
from modelserve_vertex.errors import asking
from modelserve_vertex.google import Google

_INPUT = re.compile(r".*/input/(?P<part>\d+)-(?P<rows>\d+)\.jsonl")
_RESULTS, _ERRORS = "prediction.results-", "prediction.errors_stats-"


class JobFiles:
    """What lies in storage for one job."""

    def __init__(self, google: Google, bucket: str, deployment: str, job: str) -> None:
        self._google = google
        self._bucket = bucket
        self._folder = f"{storage.jobs_folder(deployment)}{job}"

    @property
    def uri(self) -> str:
        return f"gs://{self._bucket}/{self._folder}"

    @property
    def input_uri(self) -> str:
        """All parts, by a wildcard, so that their number is nothing that a request must have room for."""
        return f"{self.uri}/input/*.jsonl"

    @property
    def output_uri(self) -> str:
        return f"{self.uri}/output"

    def put(self, part: WorkPart) -> None:
        """Upload the lines of a part."""
        rows = part.lines.count(b"\n")
        name = f"{self._folder}/input/{part.number:08}-{rows}.jsonl"
        with asking(f"Uploading part {part.number} to {self.uri}"):
            blob = self._google.storage.bucket(self._bucket).blob(name)
            blob.upload_from_string(
                part.lines, content_type="application/jsonl", checksum="crc32c", **self._google.reading
            )

    def parts(self) -> dict[int, int]:
        """How many rows each part has that was uploaded."""
        found = (_INPUT.fullmatch(blob.name) for blob in _blobs(self._google, self._bucket, f"{self._folder}/input/"))
        return {int(match["part"]): int(match["rows"]) for match in found if match}

    def results(self, directory: str) -> list[Any]:
        """The objects that hold answers.

        Args:
            directory: As the job tells it, gs://.
        """
        return [blob for blob in self._written(directory) if _named(blob).startswith(_RESULTS)]

    def errors(self, directory: str) -> Iterator[str]:
        """Why rows have no answer, in the service's words."""
        for blob in self._written(directory):
            if _named(blob).startswith(_ERRORS) and blob.size:
                with asking(f"Reading {blob.name}"):
                    yield from blob.download_as_text(**self._google.reading).splitlines()

    def fetch(self, blob: Any, into: Path) -> None:
        """Download one object."""
        with asking(f"Fetching {blob.name}"):
            blob.download_to_filename(str(into), checksum="crc32c", **self._google.reading)

    def remove(self) -> None:
        """Remove all of it. Quiet where there is nothing."""
        _removed(self._google, self._bucket, f"{self._folder}/")

    def _written(self, directory: str) -> list[Any]:
        bucket, _, folder = directory.removeprefix("gs://").partition("/")
        return _blobs(self._google, bucket, folder.rstrip("/") + "/") if folder else []


def remove_all(google: Google, bucket: str, deployment: str) -> None:
    """Remove the files of every job of a deployment, those of uploads that were broken off too."""
    _removed(google, bucket, storage.jobs_folder(deployment))


def _removed(google: Google, bucket: str, prefix: str) -> None:
    for blob in _blobs(google, bucket, prefix):
        with asking(f"Removing {blob.name}"), contextlib.suppress(google_errors.NotFound):
            blob.delete(**google.reading)


def _blobs(google: Google, bucket: str, prefix: str) -> list[Any]:
    with asking(f"Listing gs://{bucket}/{prefix}"), contextlib.suppress(google_errors.NotFound):
        return list(google.storage.list_blobs(bucket, prefix=prefix, **google.reading))
    return []


def _named(blob: Any) -> str:
    return str(blob.name).rpartition("/")[2]
