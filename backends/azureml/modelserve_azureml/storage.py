"""The workspace's own storage, where the lines of batch jobs and their answers lie.

A datastore says which container it is and, to who may ask, by what it is opened; one that keeps no secrets is opened by
the caller's own sign-in.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from modelserve.backend import raising_ours
from modelserve_azureml.arm import Arm
from modelserve_azureml.credentials import Credentials
from modelserve_azureml.errors import azure_errors
from modelserve_azureml.names import Workspace
from modelserve_azureml.reach import Reach

_RETRIES = 3
#: A signature is good for an hour at least.
_FRESH_S = 1800.0


class Store:
    """Blobs of one datastore, by name. May be used from many threads.

    Attributes:
        name: The datastore's.
        path: Its address.
    """

    def __init__(self, workspace: Workspace, name: str, arm: Arm, reach: Reach, credentials: Credentials) -> None:
        self.name = name
        self.path = workspace.datastore(name)
        self._arm = arm
        self._reach = reach
        self._credentials = credentials
        self._lock = threading.Lock()
        self._opened_by: tuple[str, dict[str, Any]] = ("", {})
        self._until = 0.0

    def put(self, name: str, content: bytes) -> None:
        with self._container(f"Writing {name}") as container:
            container.upload_blob(name, content, overwrite=True)

    def get(self, name: str) -> bytes | None:
        """A blob's content; None where there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        with self._container(f"Reading {name}") as container, contextlib.suppress(ResourceNotFoundError):
            content: bytes = container.download_blob(name).readall()
            return content
        return None

    def names(self, prefix: str) -> list[str]:
        """The blobs whose name begins so."""
        with self._container(f"Listing {prefix}") as container:
            return list(container.list_blob_names(name_starts_with=prefix))

    def remove(self, prefix: str) -> None:
        """Remove the blobs whose name begins so. Quiet when there are none."""
        from azure.core.exceptions import ResourceNotFoundError

        found = self.names(prefix)
        with self._container(f"Removing {prefix}") as container:
            for name in found:
                with contextlib.suppress(ResourceNotFoundError):
                    container.delete_blob(name)

    @contextlib.contextmanager
    def _container(self, doing: str) -> Iterator[Any]:
        from azure.storage.blob import ContainerClient

        url, credential = self._opened()
        with raising_ours(azure_errors(), doing):
            client = ContainerClient.from_container_url(
                url, retry_total=_RETRIES, **credential, **self._reach.for_azure()
            )
            with client:
                yield client

    def _opened(self) -> tuple[str, dict[str, Any]]:
        with self._lock:
            if self._until < time.monotonic():
                self._opened_by = self._looked_up()
                self._until = time.monotonic() + _FRESH_S
            return self._opened_by

    def _looked_up(self) -> tuple[str, dict[str, Any]]:
        """The container's address, and what opens it."""
        found = self._arm.ask("GET", self.path)["properties"]
        account = found["accountName"]
        url = f"{found.get('protocol') or 'https'}://{account}.blob.{found['endpoint']}/{found['containerName']}"
        if (found.get("credentials") or {}).get("credentialsType") == "None":
            return url, {"credential": self._credentials.credential}
        secrets = self._arm.ask("POST", f"{self.path}/listSecrets")
        if secrets.get("sasToken"):
            return f"{url}?{secrets['sasToken'].lstrip('?')}", {}
        return url, {"credential": {"account_name": account, "account_key": secrets["key"]}}
