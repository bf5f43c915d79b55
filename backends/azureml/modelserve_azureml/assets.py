"""Model and environment: uploaded and registered under names made from their content, once.

    bundle ──files───► a place that the workspace gives for it ──► model, by azure-ai-ml
    image  ──routes────────────────────────────────────────────► environment
    script ──files───► as a bundle's ──────────────────────────► code of a batch job

No role on the storage is needed for it.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modelserve.backend import raising_ours
from modelserve.backend.journal import Journal
from modelserve.bundle import Bundle
from modelserve.errors import BackendError, MissingExtraError, ModelServeError
from modelserve_azureml import batch_bodies, bodies
from modelserve_azureml.arm import Arm
from modelserve_azureml.code import code_files
from modelserve_azureml.credentials import Credentials
from modelserve_azureml.errors import azure_errors
from modelserve_azureml.names import Workspace, content_version, marks, model_version
from modelserve_azureml.reach import Reach
from modelserve_azureml.validation import Kind, check

#: Kept by the service as the folder's name below AZUREML_MODEL_DIR.
FOLDER = "bundle"
CODE_FOLDER = "code"
_PARALLEL_BLOCKS = 4
_RETRIES = 3
_CLOUD = "AZUREML_CURRENT_CLOUD"
_ENVIRONMENT = threading.Lock()

Progress = Callable[[str], None]


class Assets:
    """Registers what a deployment is made of."""

    def __init__(self, workspace: Workspace, arm: Arm, reach: Reach, credentials: Credentials) -> None:
        self._workspace = workspace
        self._arm = arm
        self._reach = reach
        self._credentials = credentials
        self._lock = threading.Lock()
        self._client: Any = None

    def model(self, endpoint: str, bundle: Bundle, tags: Mapping[str, str], journal: Journal, tell: Progress) -> str:
        """The address of the registered bundle."""
        version = model_version(bundle.digest)
        path = f"{self._workspace.model(endpoint)}/versions/{version}"
        if self._arm.find(path) is not None:
            return path
        journal.will_create("model", path, lambda: self.forget(path))
        tell(f"Uploading the model ({_size_bytes(bundle.path) / 1e6:,.1f} MB)")
        uri = self._uploaded(path, bundle.path, journal)
        body = {"properties": {"modelType": "custom_model", "modelUri": uri, "tags": dict(tags)}}
        check(Kind.MODEL, endpoint, body)
        self._registered(endpoint, version, uri, tags)
        return path

    def environment(self, endpoint: str, image: str, tags: Mapping[str, str], journal: Journal) -> str:
        """The address of the environment that runs `image`."""
        body = bodies.environment(image, tags)
        path = f"{self._workspace.environment(endpoint)}/versions/{content_version(image)}"
        if self._arm.find(path) is None:
            journal.will_create("environment", path, lambda: self.forget(path))
            self._arm.ask("PUT", path, body)
        return path

    def code(self, path: str, tags: Mapping[str, str], journal: Journal) -> str:
        """The address of the code of a batch job: the script that the service's driver runs, and modelserve."""
        journal.will_create("code", path, lambda: self.forget(path))
        uri = self._sent(path, {f"{CODE_FOLDER}/{name}": content for name, content in code_files()}, journal)
        self._arm.ask("PUT", path, batch_bodies.code(f"{uri}/{CODE_FOLDER}", tags))
        return path

    def forget(self, path: str) -> None:
        """Remove one version of a model or an environment; where the service keeps it, it is archived."""
        found = self._arm.find(path)
        if found is None:
            return
        try:
            self._arm.ask("DELETE", path)
        except BackendError:
            self._arm.ask("PUT", path, {"properties": {**_writable(found["properties"]), "isArchived": True}})

    def forget_all(self, endpoint: str, *, but: frozenset[str] = frozenset()) -> None:
        """Remove what was registered for an endpoint, except these addresses."""
        for container in (self._workspace.model(endpoint), self._workspace.environment(endpoint)):
            for found in self._arm.every(f"{container}/versions"):
                path = found["id"]
                if path not in but and marks(found) is not None and not found["properties"].get("isArchived"):
                    self.forget(path)

    def _uploaded(self, path: str, folder: Path, journal: Journal) -> str:
        """Where the bundle's files lie now."""
        names = {f"{FOLDER}/{file.relative_to(folder).as_posix()}": file for file in _files(folder)}
        return f"{self._sent(path, names, journal)}/{FOLDER}"

    def _sent(self, path: str, names: Mapping[str, Path | bytes], journal: Journal) -> str:
        """Send files to the place that the workspace gives for an asset; its address."""
        told = self._arm.ask("POST", f"{path}/startPendingUpload", {"pendingUploadType": "TemporaryBlobReference"})
        place = told["blobReferenceForConsumption"]
        uri, signed = str(place["blobUri"]), place["credential"]["sasUri"]
        # Until they are registered nothing else leads to them.
        journal.will_create("files", uri, lambda: self._removed(signed, names))
        with raising_ours(azure_errors(), f"Uploading to {uri}"), self._container(signed) as container:
            for name, file in names.items():
                with file.open("rb") if isinstance(file, Path) else io.BytesIO(file) as content:
                    container.upload_blob(name, content, overwrite=True, max_concurrency=_PARALLEL_BLOCKS)
        return uri

    def _removed(self, signed: str, names: Iterable[str]) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        with raising_ours(azure_errors(), "Removing what was uploaded"), self._container(signed) as container:
            for name in names:
                with contextlib.suppress(ResourceNotFoundError):
                    container.delete_blob(name)

    def _container(self, signed: str) -> Any:
        from azure.storage.blob import ContainerClient

        return ContainerClient.from_container_url(signed, retry_total=_RETRIES, **self._reach.for_azure())

    def _registered(self, name: str, version: str, uri: str, tags: Mapping[str, str]) -> None:
        with raising_ours(azure_errors(), f"Registering model {name!r}"), self._lock:
            from azure.ai.ml.entities import Model

            model = Model(name=name, version=version, path=uri, type="custom_model", tags=dict(tags))
            self._ml_client().models.create_or_update(model)

    def _ml_client(self) -> Any:
        """Microsoft's client for machine learning; made late, since importing it takes a second."""
        if self._client is None:
            from azure.ai.ml import MLClient
            from azure.core.pipeline.transport import RequestsTransport

            workspace, way = self._workspace, self._reach.for_azure()
            transport = RequestsTransport(**way)
            # MLClient has no end of its own; its connections go with this object.
            weakref.finalize(self, transport.close)
            with _kept(_CLOUD):
                self._client = MLClient(
                    self._credentials.credential,
                    workspace.subscription,
                    workspace.resource_group,
                    workspace.name,
                    show_progress=False,
                    enable_telemetry=False,
                    retry_total=_RETRIES,
                    transport=transport,
                    **way,
                )
        return self._client


def require_packages() -> None:
    """Raises MissingExtraError where Microsoft's packages are not installed."""
    from importlib.util import find_spec

    for package in ("azure.ai.ml", "azure.identity", "azure.storage.blob", "jsonschema"):
        try:
            found = find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingExtraError(
                f'Azure Machine Learning needs {package}. Install it with: pip install "modelserve[azureml]"'
            )


@contextlib.contextmanager
def _kept(variable: str) -> Iterator[None]:
    """Whatever happens within, the variable is afterwards what it was before: MLClient sets it for all of a process."""
    with _ENVIRONMENT:
        before = os.environ.get(variable)
        try:
            yield
        finally:
            os.environ.pop(variable, None)
            if before is not None:
                os.environ[variable] = before


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ModelServeError(f"There is nothing in {str(folder)!r}.")
    return files


def _size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in _files(folder))


def _writable(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in properties.items() if key not in {"provisioningState", "isArchived"}}
