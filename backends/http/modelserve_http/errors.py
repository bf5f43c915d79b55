"""A server's answers and httpx's errors as ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from modelserve.backend import ErrorTable
from modelserve.backend.transport import HTTPX_ERRORS
from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    DeadlineError,
    DeploymentClosedError,
    DeploymentNotFoundError,
    InputError,
    ModelRunError,
    ModelServeError,
    NotReadyError,
    OverloadedError,
    WireError,
    by_code,
)

VENDOR_ERRORS: ErrorTable = HTTPX_ERRORS
#: What servers of other makes mean, which send no code.
_BY_STATUS: Mapping[int, type[ModelServeError]] = {
    400: InputError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: DeploymentNotFoundError,
    408: DeadlineError,
    413: InputError,
    415: WireError,
    422: ModelRunError,
    429: OverloadedError,
    503: NotReadyError,
    504: DeadlineError,
}


def from_answer(answer: httpx.Response, doing: str) -> ModelServeError:
    """The error that an answer other than 2xx stands for."""
    text, code = _said(answer)
    kind: Callable[..., ModelServeError] = by_code(code) if code else _BY_STATUS.get(answer.status_code, BackendError)
    if kind in {ModelServeError, DeploymentClosedError}:
        # A code of HTTP's own, or a server that ends: what its status says is nearer than a word of ours.
        kind = _BY_STATUS.get(answer.status_code, BackendError)
    message = text or f"{doing}: the server answered {answer.status_code} {answer.reason_phrase}."
    if kind is OverloadedError:
        wait = answer.headers.get("retry-after", "1")
        return OverloadedError(message, retry_after_s=float(wait) if wait.isdecimal() else 1.0)
    return kind(message)


def _said(answer: httpx.Response) -> tuple[str, str]:
    try:
        content = answer.json()
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(content, dict):
        return "", ""
    return str(content.get("error") or content.get("detail") or ""), str(content.get("code") or "")
