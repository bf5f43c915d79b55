"""Errors as HTTP answers: RFC 9457 problem details, with the Open Inference Protocol's `error` beside them."""

from __future__ import annotations

import math
from http import HTTPStatus

import orjson

from modelserve.errors import (
    AccessDeniedError,
    BundleError,
    ConfigError,
    DeadlineError,
    DeploymentClosedError,
    DeploymentNotFoundError,
    ForkedProcessError,
    InputError,
    ModelChangedError,
    ModelRunError,
    ModelServeError,
    NotReadyError,
    NotSupportedError,
    OutOfMemoryError,
    OverloadedError,
    PoisonedRequestError,
    WireError,
    WorkerStartError,
)
from modelserve.runtime.server.http.messages import PROBLEM, Headers, Response

#: Class of error -> status; the nearest class wins.
STATUS: dict[type[ModelServeError], int] = {
    ModelServeError: 500,
    InputError: 400,
    WireError: 400,
    ConfigError: 400,
    NotSupportedError: 400,
    BundleError: 422,
    ModelRunError: 422,
    PoisonedRequestError: 422,
    DeploymentNotFoundError: 404,
    AccessDeniedError: 403,
    NotReadyError: 503,
    OverloadedError: 429,
    WorkerStartError: 503,
    DeploymentClosedError: 503,
    ModelChangedError: 503,
    ForkedProcessError: 503,
    OutOfMemoryError: 503,
    DeadlineError: 504,
}
_RETRY_S = 1.0


def status_of(error: ModelServeError) -> int:
    """The HTTP status that says the same."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def from_error(error: ModelServeError, status: int | None = None) -> Response:
    """What a client is told of a deliberate failure; `status` where the error's own is not meant."""
    status = status or status_of(error)
    retry_s = error.retry_after_s if isinstance(error, OverloadedError) else _RETRY_S
    return problem(status, str(error), code=error.code, retry_s=retry_s if status in {429, 503} else None)


def problem(
    status: int, message: str, *, code: str = "http", retry_s: float | None = None, headers: Headers = ()
) -> Response:
    """A failure by its status; `retry_s` says when to try again."""
    if retry_s is not None:
        headers = (*headers, (b"retry-after", b"%d" % max(1, math.ceil(retry_s))))
    message = message.encode("utf-8", "replace").decode()  # names may hold what is no text
    content = {
        "error": message,
        "type": f"urn:modelserve:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "code": code,
    }
    return Response(orjson.dumps(content), PROBLEM, status=status, headers=headers)
