"""What each method of the protocol does: the handlers of the HTTP paths, with messages instead of JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from modelserve.errors import ConfigError
from modelserve.runtime.server.access.caller import require_model
from modelserve.runtime.server.api import inference
from modelserve.runtime.server.api import repository as repository_api
from modelserve.runtime.server.http.messages import Request
from modelserve.runtime.server.life import Life
from modelserve.runtime.server.models.repository import Repository
from modelserve.runtime.server.routes import Scope
from modelserve.runtime.server.rpc.tensors import Tensors

#: Answers one message; the seconds are what the call's deadline leaves, None where it has none.
Method: TypeAlias = Callable[[Any, Request, float | None], Awaitable[Any]]

# As Triton's model_config.proto numbers them.
_UNSIGNED, _SIGNED = ("UINT8", "UINT16", "UINT32", "UINT64"), ("INT8", "INT16", "INT32", "INT64")
_KINDS = ("BOOL", *_UNSIGNED, *_SIGNED, "FP16", "FP32", "FP64", "STRING")
_DATA_TYPES = {kind: number for number, kind in enumerate(_KINDS, 1)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One method: what its messages are, and what a caller must be allowed to do.

    Attributes:
        asks, answers: Names of its messages.
        always: Whether it answers before the server is ready.
        streams: Whether messages come and go one after the other in one call.
    """

    answer: Method
    asks: str
    answers: str
    scope: Scope
    always: bool = False
    streams: bool = False


class Service:
    """The methods over these models."""

    def __init__(self, classes: Mapping[str, Any], repository: Repository, life: Life, server_version: str) -> None:
        self._classes = classes
        self._repository = repository
        self._life = life
        self._said = {"name": inference.SERVER, "version": server_version, "extensions": inference.EXTENSIONS}
        self._tensors = Tensors(classes)

    def methods(self) -> dict[str, Entry]:
        """Every method by its name."""

        def entry(name: str, answer: Method, scope: Scope, *, always: bool = False) -> Entry:
            return Entry(answer, f"{name}Request", f"{name}Response", scope, always=always)

        stream = Entry(self._infer, "ModelInferRequest", "ModelStreamInferResponse", Scope.PREDICT, streams=True)
        return {
            "ServerLive": entry("ServerLive", self._live, Scope.OPEN, always=True),
            "ServerReady": entry("ServerReady", self._ready, Scope.OPEN, always=True),
            "ServerMetadata": entry("ServerMetadata", self._server, Scope.OPEN, always=True),
            "ModelReady": entry("ModelReady", self._model_ready, Scope.PREDICT),
            "ModelMetadata": entry("ModelMetadata", self._model, Scope.PREDICT),
            "ModelConfig": entry("ModelConfig", self._config, Scope.PREDICT),
            "ModelInfer": entry("ModelInfer", self._infer, Scope.PREDICT),
            "ModelStreamInfer": stream,
            "ModelStatistics": entry("ModelStatistics", self._statistics, Scope.METRICS),
            "RepositoryIndex": entry("RepositoryIndex", self._index, Scope.ADMIN),
            "RepositoryModelLoad": entry("RepositoryModelLoad", self._load, Scope.ADMIN),
            "RepositoryModelUnload": entry("RepositoryModelUnload", self._unload, Scope.ADMIN),
        }

    async def _live(self, asked: Any, request: Request, left_s: float | None) -> Any:
        return self._classes["ServerLiveResponse"](live=True)

    async def _ready(self, asked: Any, request: Request, left_s: float | None) -> Any:
        return self._classes["ServerReadyResponse"](ready=not self._life.why_not_ready())

    async def _server(self, asked: Any, request: Request, left_s: float | None) -> Any:
        return self._classes["ServerMetadataResponse"](**self._said)

    async def _model_ready(self, asked: Any, request: Request, left_s: float | None) -> Any:
        require_model(request, asked.name)
        return self._classes["ModelReadyResponse"](ready=self._repository.find(asked.name, asked.version).is_ready)

    async def _model(self, asked: Any, request: Request, left_s: float | None) -> Any:
        require_model(request, asked.name)
        said = inference.metadata(self._repository.find(asked.name, asked.version), self._repository)
        del said["parameters"]  # gRPC has no place for them
        return self._classes["ModelMetadataResponse"](**said)

    async def _config(self, asked: Any, request: Request, left_s: float | None) -> Any:
        require_model(request, asked.name)
        said = inference.configuration(self._repository.find(asked.name, asked.version))
        for tensor in (*said["input"], *said["output"]):
            tensor["data_type"] = _DATA_TYPES[tensor["data_type"].removeprefix("TYPE_")]
        return self._classes["ModelConfigResponse"](config=said)

    async def _infer(self, asked: Any, request: Request, left_s: float | None) -> Any:
        name, version = asked.model_name, asked.model_version
        require_model(request, name)
        request.arguments = (name, version) if version else (name,)
        served = self._repository.ready(name, version) or await self._repository.demand(name, version)
        return await served.ask(lambda model: self._tensors.read(asked, model, left_s), request)

    async def _statistics(self, asked: Any, request: Request, left_s: float | None) -> Any:
        if asked.name:
            require_model(request, asked.name)
        chosen = [self._repository.find(asked.name, asked.version)] if asked.name else self._repository.served()
        said = [inference.statistics(served) for served in chosen]
        for one in said:
            del one["batch_stats"]
        return self._classes["ModelStatisticsResponse"](model_stats=said)

    async def _index(self, asked: Any, request: Request, left_s: float | None) -> Any:
        return self._classes["RepositoryIndexResponse"](
            models=repository_api.index(self._repository, only_ready=asked.ready)
        )

    async def _load(self, asked: Any, request: Request, left_s: float | None) -> Any:
        request.arguments = (asked.model_name,)
        if asked.parameters:
            raise ConfigError(repository_api.NO_PARAMETERS)
        await self._repository.load(asked.model_name)
        return self._classes["RepositoryModelLoadResponse"]()

    async def _unload(self, asked: Any, request: Request, left_s: float | None) -> Any:
        request.arguments = (asked.model_name,)
        await self._repository.unload(asked.model_name)
        return self._classes["RepositoryModelUnloadResponse"]()
