"""Google's errors as ours.

Over REST the library raises the class of an HTTP status, and the meaning stands in the body, as
{"error": {"status": "ABORTED"}}.
Errors of long operations carry their meaning in their own class.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import requests
from google import resumable_media
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud.storage import exceptions as storage_errors

from modelserve.backend import ErrorTable, raising_ours, translated
from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    DeadlineError,
    DeploymentNotFoundError,
    InputError,
    ModelServeError,
    NotReadyError,
    NotSupportedError,
    OverloadedError,
    QuotaError,
    StartError,
)

_BY_STATUS: Mapping[str, type[ModelServeError]] = {
    "ABORTED": OverloadedError,  # somebody else changed it meanwhile: try again
    "ALREADY_EXISTS": BackendError,
    "CANCELLED": BackendError,
    "DATA_LOSS": BackendError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "FAILED_PRECONDITION": BackendError,
    "INTERNAL": BackendError,
    "INVALID_ARGUMENT": ConfigError,
    "NOT_FOUND": DeploymentNotFoundError,
    "OUT_OF_RANGE": InputError,
    "PERMISSION_DENIED": AccessDeniedError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    "UNAUTHENTICATED": AccessDeniedError,
    "UNAVAILABLE": NotReadyError,
    "UNIMPLEMENTED": NotSupportedError,
    "UNKNOWN": BackendError,
}
_BY_CODE: Mapping[int, str] = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED", 409: "ABORTED", 412: "FAILED_PRECONDITION", 416: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_CONTAINER_FAILED = ("model server exited", "model server never", "model server logs")
_NO_ROOM = ("quotas are exceeded", "out of stock", "stockout", "insufficient capacity")


def status_of(error: BaseException) -> str:
    """The name of an error's status, such as 'FAILED_PRECONDITION'."""
    response = getattr(error, "response", None)
    try:
        return str(response.json()["error"]["status"])  # type: ignore[union-attr]  # what it is not is caught
    except (AttributeError, ValueError, KeyError, TypeError):
        pass
    code = getattr(error, "grpc_status_code", None)
    return code.name if code is not None else _BY_CODE.get(getattr(error, "code", None) or 0, "UNKNOWN")


def _by_status(error: BaseException) -> type[ModelServeError]:
    status, text = status_of(error), str(getattr(error, "message", "")).lower()
    if status == "FAILED_PRECONDITION" and any(words in text for words in _CONTAINER_FAILED):
        return StartError
    if status == "RESOURCE_EXHAUSTED" and any(words in text for words in _NO_ROOM):
        return QuotaError
    return _BY_STATUS.get(status, BackendError)


def _by_cause(error: BaseException) -> type[ModelServeError]:
    """What it was that was tried until the time was over."""
    cause = getattr(error, "_cause", None)
    return (cause is not None and translated(VENDOR_ERRORS, cause)) or DeadlineError


VENDOR_ERRORS: ErrorTable = {
    google_errors.GoogleAPIError: BackendError,
    google_errors.GoogleAPICallError: _by_status,
    google_errors.RetryError: _by_cause,
    google_errors.DuplicateCredentialArgs: ConfigError,
    auth_errors.GoogleAuthError: AccessDeniedError,
    auth_errors.TransportError: NotReadyError,
    auth_errors.TimeoutError: DeadlineError,
    auth_errors.DefaultCredentialsError: AccessDeniedError,
    google_errors.AsyncRestUnsupportedParameterError: ConfigError,
    storage_errors.InvalidResponse: BackendError,
    storage_errors.DataCorruption: BackendError,
    storage_errors.InvalidPathError: ConfigError,
    resumable_media.InvalidResponse: BackendError,
    resumable_media.DataCorruption: BackendError,
    requests.RequestException: NotReadyError,
    requests.Timeout: DeadlineError,
    requests.exceptions.InvalidURL: ConfigError,
}


def asking(doing: str) -> AbstractContextManager[None]:
    """Within it Google's errors are ours, with `doing` in front."""
    return raising_ours(VENDOR_ERRORS, doing)
