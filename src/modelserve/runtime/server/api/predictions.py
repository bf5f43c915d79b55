"""Inference without the protocol's words: a body in any format that is read here, its answer in the same one.

POST /v1/models/{name}:predict    TensorFlow Serving, KServe
POST /invocations                 MLflow, SageMaker
POST /predict                     everybody else
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from modelserve.errors import ConfigError
from modelserve.runtime.server.access.caller import require_model
from modelserve.runtime.server.api.inference import metadata
from modelserve.runtime.server.formats import batches, lines, media
from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.models.repository import Repository
from modelserve.runtime.server.models.served import ServedModel
from modelserve.runtime.server.routes import Route, Scope

#: Asked instead of a question: what the model takes and gives. Of a cloud's container nothing else can be asked.
DESCRIBE = b"application/vnd.modelserve.describe+json"
_PATHS = (
    "/v1/models/{name}:predict",
    "/v1/models/{name}/versions/{version}:predict",
    "/invocations",
    "/predict",
)
LONGEST_LINE_BYTES = 16 << 20
# By which a caller of a path without a model names one: SageMaker's multi-model endpoints, and everybody.
_NAMED_BY = (b"x-amzn-sagemaker-target-model", b"x-modelserve-model")


class Predictions:
    """Answers bodies of any format.

    Args:
        default_model: The model of paths that name none; without it the only one there is.
    """

    def __init__(self, repository: Repository, default_model: str = "") -> None:
        self._repository = repository
        self._default = default_model

    async def __call__(self, request: Request) -> Response:
        name, version = self._asked(request)
        require_model(request, name)
        served = await self._repository.demand(name, version)
        if media.media_type(request) == DESCRIBE:
            return Response(orjson.dumps(metadata(served, self._repository)))
        if request.stream is not None:
            return await self._streamed(request, served)
        by = media.reader(request)
        if media.media_type(request) == b"application/json":
            found = batches.in_instances(request.body)
            if found is not None:
                return await _batch(found, served, request)
        return await served.ask(lambda model: media.read(request, model, by), request)

    def routes(self, paths: Sequence[str] = _PATHS) -> list[Route]:
        """The paths given, all answered alike."""
        return [Route("POST", path, self, Scope.PREDICT, "Ask a model, in any format", streams=True) for path in paths]

    def _asked(self, request: Request) -> tuple[str, str]:
        if request.arguments:
            name, *version = request.arguments
            return name, version[0] if version else ""
        for header in _NAMED_BY:
            if header in request.headers:
                return request.headers[header].decode("latin-1"), ""
        if self._default:
            return self._default, ""
        names = {served.name for served in self._repository.served()}
        if len(names) != 1:
            names = {place.name for place in self._repository.catalogue.places()}
        if len(names) != 1:
            known = ", ".join(sorted(names)) or "none"
            raise ConfigError(
                f"Which model? There are: {known}. Ask /v1/models/<name>:predict, or set the server's default model."
            )
        return names.pop(), ""

    async def _streamed(self, request: Request, served: ServedModel) -> Response:
        return Response(content_type=lines.LINES, stream=lines.answers(request, served, LONGEST_LINE_BYTES))


async def _batch(found: list[bytes], served: ServedModel, request: Request) -> Response:
    """Predictions for rows of a data set; what befalls one is told in its place."""
    answers: list[bytes] = []
    for start in range(0, len(found), batches.MOST_ROWS):
        some = found[start : start + batches.MOST_ROWS]
        answers += await batches.answers(some, lambda read: served.ask(read, request))
    return Response(b'{"predictions":[%b]}' % b",".join(answers))
