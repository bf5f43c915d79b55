"""What an answer other than 2xx stands for: the runtime's own word, or that of the door in front of it.

{"error": "...", "code": "overloaded"}                                       the runtime's
{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "..."}}   Google's
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    DeadlineError,
    DeploymentNotFoundError,
    InputError,
    ModelRunError,
    ModelServeError,
    NotReadyError,
    OverloadedError,
    WireError,
    by_code,
)

#: What a status means that the cloud's own door gives.
_BY_STATUS: Mapping[int, type[ModelServeError]] = {
    400: BackendError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: DeploymentNotFoundError,
    408: DeadlineError,
    413: InputError,
    415: WireError,
    422: ModelRunError,
    429: OverloadedError,
    502: NotReadyError,
    503: NotReadyError,
    504: DeadlineError,
}
#: Of Google's answer while nothing is deployed.
_RESTS = "traffic_split"


def refusal(answer: httpx.Response, doing: str) -> ModelServeError:
    """The error that this answer stands for."""
    said = _said(answer)
    theirs = said.get("error")
    if isinstance(theirs, dict):
        return _from_door(answer.status_code, str(theirs.get("message", "")) or doing)
    text = str(theirs or said.get("detail") or "") or f"{doing}: answered {answer.status_code} {answer.reason_phrase}."
    kind: Callable[..., ModelServeError] = by_code(str(said.get("code", "")))
    if kind is ModelServeError:
        kind = _BY_STATUS.get(answer.status_code, BackendError)
    if kind is OverloadedError:
        wait = answer.headers.get("retry-after", "1")
        return OverloadedError(text, retry_after_s=float(wait) if wait.isdecimal() else 1.0)
    return kind(text)


def _from_door(status: int, text: str) -> ModelServeError:
    if status == 400 and _RESTS in text:
        return NotReadyError(f"{text} Nothing is deployed to it now; scale() to 1 or more.")
    if status == 400 and "payload size" in text:
        return InputError(text)
    return _BY_STATUS.get(status, BackendError)(text)


def _said(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
