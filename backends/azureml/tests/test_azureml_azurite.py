"""The blob stand-in answers Microsoft's client as Microsoft's own emulator does.

Opt-in, since Azurite is a program for Node: `npm install azurite`, and MODELSERVE_AZURITE names its `azurite-blob`.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import AzureError, ServiceRequestError
from azure.storage.blob import ContainerClient

from modelserve_azureml.rehearsal.blobs import HOST
from modelserve_azureml.rehearsal.cloud import AzureRehearsal

PROGRAM = os.environ.get("MODELSERVE_AZURITE", "")
ACCOUNT, KEY = "rehearsed", base64.b64encode(b"of this test only").decode()

pytestmark = pytest.mark.skipif(not PROGRAM, reason="MODELSERVE_AZURITE names no azurite-blob.")


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[ContainerClient]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(tmp_path), "--silent"]
    process = subprocess.Popen(
        [PROGRAM, *said, "--skipApiVersionCheck", "--disableTelemetry"],
        env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
    )
    url = f"http://127.0.0.1:{port}/{ACCOUNT}/lines"
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    with ContainerClient.from_container_url(url, credential=credential, retry_total=0, **sizes()) as client:
        try:
            _created(client)
            yield client
        finally:
            process.terminate()
            process.wait(20)


def _created(client: ContainerClient) -> None:
    for _ in range(100):
        try:
            client.create_container()
            return
        except ServiceRequestError:
            time.sleep(0.2)
    raise AssertionError("Azurite does not start.")


def sizes() -> dict[str, Any]:
    return {"max_single_put_size": 1000, "max_block_size": 1000, "max_single_get_size": 1000, "max_chunk_get_size": 700}


def told(ask: Callable[[], Any]) -> Any:
    """What came of a call: its answer, or the kind of its error and the status."""
    try:
        return ask()
    except AzureError as error:
        return type(error).__name__, getattr(error, "status_code", None)


def seen(container: ContainerClient) -> list[Any]:
    """What this backend and Microsoft's client for machine learning ask of blobs, and what they hear."""
    large = bytes(range(256)) * 20
    for name, content in (("a/1", b"one"), ("a/2", large), ("a/empty", b""), ("ab", b"x"), ("ü 1%.txt", b"u")):
        container.upload_blob(name, content, overwrite=True, max_concurrency=2)
    container.upload_blob("a/1", b"one again", overwrite=True)
    return [
        list(container.list_blob_names(name_starts_with="a/")),
        sorted(container.list_blob_names()),
        list(container.list_blob_names(name_starts_with="none")),
        container.download_blob("a/1").readall(),
        container.download_blob("a/2").readall() == large,
        container.download_blob("a/empty").readall(),
        container.download_blob("a/2", offset=250, length=10).readall(),
        container.get_blob_client("a/2").get_blob_properties().size,
        container.get_blob_client("ü 1%.txt").exists(),
        told(lambda: container.download_blob("none").readall()),
        told(lambda: container.upload_blob("ab", b"y", overwrite=False)),
        told(lambda: container.delete_blob("ab")),
        told(lambda: container.delete_blob("ab")),
        container.get_blob_client("ab").exists(),
    ]


def test_blobs_are_answered_as_azurite_answers_them(azure: AzureRehearsal, azurite: ContainerClient) -> None:
    way = {"proxies": {"https": azure.proxy.url}, "connection_verify": str(azure.options["ca"])}
    url = f"https://{HOST}/lines?{azure.blobs.sign()}"
    try:
        with ContainerClient.from_container_url(url, retry_total=0, **sizes(), **way) as client:
            assert seen(client) == seen(azurite)
    finally:
        azure.blobs.remove("lines/")
