"""What runs: for each deployment its instances, each the real runtime, started as Azure starts a container of ours.

    model's blobs ──► <folder>/azureml-models/<name>/<version>/bundle ──► AZUREML_MODEL_DIR ──► the runtime

Several instances are several processes.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelserve.standin.containers import ContainerSpec
from modelserve.standin.faults import Switches
from modelserve.standin.fleet import Fleet, NoCapacityError, NotHealthyError
from modelserve_azureml.rehearsal.blobs import HOST, Blobs
from modelserve_azureml.rehearsal.resources import OperationFailed
from modelserve_azureml.validation import seconds

_GRACE_S = 30.0
_DEFAULT_PROBE = {"period": "PT10S", "failureThreshold": 30}


class Fleets:
    """Instances by the deployment's path.

    Args:
        has_image: Whether there is an image of that name to be pulled.
        switches: What is to go wrong with containers now.
    """

    def __init__(self, blobs: Blobs, has_image: Callable[[str], bool], switches: Callable[[], Switches]) -> None:
        self._has_image = has_image
        self._blobs = blobs
        self._switches = switches
        self._lock = threading.Lock()
        self._running: dict[str, Fleet] = {}
        self._lines: dict[str, dict[str, list[str]]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="modelserve-azure-"))

    def find(self, path: str) -> Fleet | None:
        with self._lock:
            return self._running.get(path.lower())

    def run(self, path: str, content: Mapping[str, Any], environment: Mapping[str, Any], uri: str) -> None:
        """Have a deployment's instances run; returns when all of them are ready.

        Raises:
            OperationFailed: they do not come up.
        """
        fleet, capacity = self.find(path), content["sku"]["capacity"]
        try:
            if fleet is None:
                fleet = self._new(path, content, environment, uri)
            fleet.resize(capacity)
        except NotHealthyError as error:
            with self._lock:
                self._lines[path.lower()]["InferenceServer"] = error.lines
            text = f"User container has crashed or terminated: {error}"
            raise OperationFailed("ResourceNotReady", text) from error
        except NoCapacityError as error:
            raise OperationFailed("OutOfCapacity", f"The specified VM size has no capacity: {error}") from error

    def logs(self, path: str, container: str) -> list[str]:
        """What one of a deployment's two containers wrote, all instances together."""
        fleet = self.find(path)
        if fleet is not None and container == "InferenceServer":
            written = [line for lines in fleet.logs().values() for line in lines]
            if written:
                return written
        with self._lock:
            return list(self._lines.get(path.lower(), {}).get(container, ()))

    def stop(self, path: str) -> None:
        """End a deployment's instances, requests under way first."""
        with self._lock:
            fleet = self._running.pop(path.lower(), None)
            self._lines.pop(path.lower(), None)
        if fleet is not None:
            fleet.stop()
        shutil.rmtree(self._place(path), ignore_errors=True)

    def names(self) -> list[str]:
        with self._lock:
            fleets = list(self._running.values())
        return [container.name for fleet in fleets for container in fleet.containers]

    def close(self) -> None:
        """End everything."""
        with self._lock:
            paths = list(self._running)
        for path in paths:
            self.stop(path)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _new(self, path: str, content: Mapping[str, Any], environment: Mapping[str, Any], uri: str) -> Fleet:
        note = self._lines.setdefault(path.lower(), {"StorageInitializer": [], "InferenceServer": []})
        if not self._has_image(environment.get("image") or ""):
            raise OperationFailed("ImagePullFailure", f"Unable to pull image {environment.get('image')}.")
        model = content["properties"].get("model") or ""
        folder = mounted(self._blobs, self._place(path), model, uri, note["StorageInitializer"])
        properties, routes = content["properties"], environment["inferenceConfig"]
        told = {"AZUREML_MODEL_DIR": str(folder), **(properties.get("environmentVariables") or {})}
        spec = ContainerSpec(
            environment=told,
            port_variable="MODELSERVE_SERVER_PORT",
            health_path=routes["readinessRoute"]["path"],
            grace_s=_GRACE_S,
        )
        probe = {**_DEFAULT_PROBE, **(properties.get("startupProbe") or properties.get("readinessProbe") or {})}
        startup_s = float((seconds(probe["period"]) or 10) * probe["failureThreshold"])
        fleet = Fleet(path.rpartition("/")[2], spec, startup_s=startup_s, switches=self._switches)
        with self._lock:
            self._running[path.lower()] = fleet
        return fleet

    def _place(self, path: str) -> Path:
        return self._folder / path.rpartition("/onlineEndpoints/")[2].replace("/", "_")


def mounted(blobs: Blobs, place: Path, model: str, uri: str, note: list[str]) -> Path:
    """A model's files where its container sees them: the uploaded folder keeps its own name.

    Args:
        place: The container's own folder.
        model: The model's address.
        note: Told what was downloaded.
    """
    name, version = (model or "x/x/versions/0").split("/")[-3::2]
    folder = place / "azureml-models" / name / version
    folder.mkdir(parents=True, exist_ok=True)
    prefix = uri.removeprefix(f"https://{HOST}/")
    for found, blob in blobs.below(prefix):
        file = folder / prefix.rpartition("/")[2] / found
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(blob)
        note.append(f"{time.strftime('%H:%M:%S')} downloaded {found} ({len(blob)} bytes)")
    return folder
