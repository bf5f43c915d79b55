"""What exists in the rehearsed subscription, and the long operations that change it.

A path names a resource whatever the case of its letters, as in Azure.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable
from typing import Any

from modelserve.standin.loopback import Answered
from modelserve_azureml.rehearsal.calls import Refusal, said

_STATUS = "/subscriptions/-/providers/Microsoft.MachineLearningServices/locations/-/mfeOperationsStatus/"


class Resources:
    """Resources by path. Everything is done under `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._found: dict[str, dict[str, Any]] = {}

    def get(self, path: str) -> dict[str, Any] | None:
        with self.lock:
            found = self._found.get(path.lower())
            return None if found is None else copy.deepcopy(found)

    def need(self, path: str) -> dict[str, Any]:
        """As `get`; 404 where there is none."""
        found = self.get(path)
        if found is None:
            raise Refusal(404, "ResourceNotFound", f"The resource {path} was not found.")
        return found

    def put(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        named = {**content, "id": path, "name": path.rpartition("/")[2]}
        with self.lock:
            self._found[path.lower()] = copy.deepcopy(named)
        return named

    def mark(self, path: str, state: str) -> None:
        """Note a resource's provisioning state, where it is still there."""
        with self.lock:
            found = self._found.get(path.lower())
            if found is not None:
                found["properties"]["provisioningState"] = state

    def remove(self, path: str) -> None:
        """Take away a resource and all below it."""
        below = f"{path.lower()}/"
        with self.lock:
            for known in [known for known in self._found if known == path.lower() or known.startswith(below)]:
                del self._found[known]

    def below(self, path: str) -> list[dict[str, Any]]:
        """The resources directly below a collection's path."""
        start = f"{path.lower()}/"
        with self.lock:
            return [
                copy.deepcopy(content)
                for known, content in sorted(self._found.items())
                if known.startswith(start) and "/" not in known[len(start) :]
            ]

    def paths(self) -> list[str]:
        with self.lock:
            return sorted(content["id"] for content in self._found.values())


class Operations:
    """Long operations, each a thread; what they answer meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status: dict[str, dict[str, Any]] = {}
        self._threads: list[threading.Thread] = []

    def start(self, status: int, body: Any, work: Callable[[], None]) -> Answered:
        """Begin one, and say where its end can be seen."""
        name = str(uuid.uuid4())
        with self._lock:
            self._status[name] = {"name": name, "status": "InProgress"}
        thread = threading.Thread(target=self._run, args=(name, work), name=f"azure-operation-{name[:8]}", daemon=True)
        with self._lock:
            self._threads = [known for known in self._threads if known.is_alive()] + [thread]
        thread.start()
        where = f"https://management.azure.com{_STATUS}{name}?api-version=2024-10-01"
        # Microsoft's client reads a whole number here; a longer wait would only make a rehearsal slow.
        return said(body, status, {"azure-asyncoperation": where, "location": where, "retry-after": "1"})

    def look(self, name: str) -> Answered:
        """The state of an operation."""
        with self._lock:
            found = self._status.get(name)
        if found is None:
            raise Refusal(404, "OperationNotFound", "There is no such operation.")
        return said(found, headers={"retry-after": "0.1"})

    def wait(self, timeout_s: float = 30.0) -> None:
        """Until none is under way."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(timeout_s)

    def _run(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
            end: dict[str, Any] = {"status": "Succeeded"}
        except OperationFailed as error:
            end = {"status": "Failed", "error": {"code": error.code, "message": str(error)}}
        except Exception as error:  # noqa: BLE001  # it is what whoever waits for the operation is told
            end = {"status": "Failed", "error": {"code": "InternalServerError", "message": repr(error)}}
        with self._lock:
            self._status[name] |= end


class OperationFailed(Exception):  # noqa: N818  # the end of an operation
    """Ends an operation as failed, with a code of Azure's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
