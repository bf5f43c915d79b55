"""A bundle in S3: the archive that SageMaker unpacks, and the manifest that says what it is.

    s3://<bucket>/<prefix>/<deployment>/<bundle's digest>/model.tar.gz      same bundle, same bytes
                                                         /manifest.json     read again by whoever attaches

The manifest is written last: where it is, the archive is whole.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from modelserve.backend import raising_ours
from modelserve.bundle import Bundle
from modelserve.bundle.archive import pack
from modelserve.bundle.manifest import Manifest
from modelserve.bundle.store import MANIFEST
from modelserve.errors import DeploymentNotFoundError
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.errors import VENDOR_ERRORS
from modelserve_sagemaker.options import SageMakerOptions

ARCHIVE = "model.tar.gz"
_LEVEL = 1  # weights hardly shrink; what matters is that the same bundle gives the same bytes


class Storage:
    """The folder of one version of one deployment."""

    def __init__(self, account: Account, options: SageMakerOptions, deployment: str, digest: str) -> None:
        self._account = account
        self._options = options
        self.bucket = bucket_of(account, options)
        self._key = f"{options.prefix.strip('/')}/{deployment}/{digest}"

    @property
    def location(self) -> str:
        return f"s3://{self.bucket}/{self._key}"

    def is_complete(self) -> bool:
        """Whether archive and manifest are there; the manifest is written last."""
        try:
            self._account.call("s3", "head_object", Bucket=self.bucket, Key=f"{self._key}/{MANIFEST}")
        except DeploymentNotFoundError:
            return False
        return True

    def upload(self, bundle: Bundle, on_progress: Callable[[str], None]) -> None:
        """Put the bundle there."""
        with tempfile.TemporaryDirectory(prefix="modelserve-upload-") as folder:
            archive = Path(folder) / ARCHIVE
            write_archive(bundle, archive)
            on_progress(f"Uploading {archive.stat().st_size / 1e6:.1f} MB to {self.location}")
            with raising_ours(VENDOR_ERRORS, f"Uploading the model to {self.location}"):
                self._account.client("s3").upload_file(
                    str(archive), self.bucket, f"{self._key}/{ARCHIVE}", ExtraArgs=encryption(self._options)
                )
        self._account.call(
            "s3",
            "put_object",
            Bucket=self.bucket,
            Key=f"{self._key}/{MANIFEST}",
            Body=bundle.manifest.to_json(),
            **encryption(self._options),
        )

    def manifest(self) -> Manifest:
        """What lies there.

        Raises:
            DeploymentNotFoundError: nothing does.
        """
        answer = self._account.call("s3", "get_object", Bucket=self.bucket, Key=f"{self._key}/{MANIFEST}")
        with raising_ours(VENDOR_ERRORS, f"Reading {self.location}"):
            return Manifest.from_json(answer["Body"].read())

    def remove(self) -> None:
        """Everything of this version. Quiet when it is gone."""
        remove_below(self._account, self.bucket, f"{self._key}/")


def bucket_of(account: Account, options: SageMakerOptions) -> str:
    """The bucket that is meant."""
    return options.bucket or f"modelserve-{account.number}-{account.region}"


def encryption(options: SageMakerOptions) -> dict[str, str]:
    """How what is put there is encrypted."""
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": options.kms_key} if options.kms_key else {}


def keys_below(account: Account, bucket: str, prefix: str) -> list[str]:
    """The keys that begin with `prefix`; none where there is no such bucket."""
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        answer = account.call("s3", "list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        found += [entry["Key"] for entry in answer.get("Contents", [])]
        if not answer.get("IsTruncated"):
            return found
        token = {"ContinuationToken": answer["NextContinuationToken"]}


def remove_below(account: Account, bucket: str, prefix: str) -> None:
    """Every object whose key begins with `prefix`."""
    keys = keys_below(account, bucket, prefix)
    for start in range(0, len(keys), 1000):
        batch = [{"Key": key} for key in keys[start : start + 1000]]
        account.call("s3", "delete_objects", Bucket=bucket, Delete={"Objects": batch, "Quiet": True})


def write_archive(bundle: Bundle, into: Path) -> None:
    """The bundle as SageMaker unpacks it: its files at the top, no times, no owners."""
    with into.open("wb") as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
        pack(bundle, cast("IO[bytes]", packed))
