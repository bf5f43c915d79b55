"""ModelService: the registry of models.

A model's artefacts are copied when it is uploaded, and its image is taken in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2

from modelserve_vertex.rehearsal.filters import matching
from modelserve_vertex.rehearsal.operations import Operations
from modelserve_vertex.rehearsal.storage import Objects

#: Vertex AI's own bucket for copies; no project sees it.
MANAGED_BUCKET = "caip-tenant-rehearsal"


class Models:
    """The registered models.

    Args:
        has_image: Whether an image reference can be pulled.
        users: The endpoints to which a model is deployed.
    """

    def __init__(
        self,
        operations: Operations,
        objects: Objects,
        has_image: Callable[[str], bool],
        users: Callable[[str], list[str]],
    ) -> None:
        self._operations = operations
        self._objects = objects
        self._has_image = has_image
        self._users = users
        self._lock = threading.Lock()
        self._found: dict[str, Any] = {}

    @property
    def all(self) -> list[Any]:
        with self._lock:
            return list(self._found.values())

    def upload_model(self, request: v1.UploadModelRequest) -> Any:
        name = f"{request.parent}/models/{request.model_id or self._free_id()}"
        if name in self._found:
            raise google_errors.AlreadyExists(f"The Model {name} already exists.")
        model = v1.Model(request.model)
        model.name, model.version_id = name, "1"

        def work(_reach: Any) -> v1.UploadModelResponse:
            image = model.container_spec.image_uri
            if image and not self._has_image(image):
                raise google_errors.FailedPrecondition(
                    f"The image {image} does not exist, or the service agent may not read it."
                )
            self._take_artefacts(model)
            with self._lock:
                if name in self._found:
                    raise google_errors.AlreadyExists(f"The Model {name} already exists.")
                self._found[name] = model
            return v1.UploadModelResponse(model=name, model_version_id="1")

        return self._operations.start(name, v1.UploadModelOperationMetadata, work)

    def get_model(self, request: v1.GetModelRequest) -> Any:
        return v1.Model(self.require(request.name))

    def list_models(self, request: v1.ListModelsRequest) -> v1.ListModelsResponse:
        here = [model for model in self.all if model.name.startswith(f"{request.parent}/models/")]
        return v1.ListModelsResponse(models=matching(here, request.filter))

    def delete_model(self, request: v1.DeleteModelRequest) -> Any:
        model = self.require(request.name)
        self._refuse_used(model.name)

        def work(_reach: Any) -> empty_pb2.Empty:
            self._refuse_used(model.name)
            with self._lock:
                self._found.pop(model.name, None)
            self._objects.remove_folder(MANAGED_BUCKET, f"{model.name}/")
            return empty_pb2.Empty()

        return self._operations.start(model.name, v1.DeleteOperationMetadata, work)

    def require(self, name: str) -> Any:
        """The model of this name, with or without a version."""
        with self._lock:
            found = self._found.get(name.partition("@")[0])
        if found is None:
            raise google_errors.NotFound(f"The Model {name} does not exist.")
        return found

    def storage_uri(self, model: Any) -> str:
        """Where the copy of its artefacts lies."""
        return f"gs://{MANAGED_BUCKET}/{model.name}" if model.artifact_uri else ""

    def _refuse_used(self, name: str) -> None:
        users = self._users(name)
        if users:
            raise google_errors.FailedPrecondition(
                f"The Model {name} is deployed or being deployed at the following Endpoint(s): {', '.join(users)}."
            )

    def _take_artefacts(self, model: Any) -> None:
        if not model.artifact_uri:
            return
        bucket, _, folder = model.artifact_uri.removeprefix("gs://").partition("/")
        copied = self._objects.copy_folder(bucket, folder.rstrip("/") + "/", MANAGED_BUCKET, f"{model.name}/")
        if not copied:
            raise google_errors.InvalidArgument(f"The artifact_uri {model.artifact_uri} has no files.")

    def _free_id(self) -> str:
        return str(10**18 + len(self._found))
