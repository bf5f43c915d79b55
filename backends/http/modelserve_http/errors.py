"""A server's answers and httpx's errors as ours."""

from __future__ import annotations

import httpx

from modelserve.backend import ErrorTable
from modelserve.backend.oip import error_of
from modelserve.backend.transport import HTTPX_ERRORS
from modelserve.errors import ModelServeError

VENDOR_ERRORS: ErrorTable = HTTPX_ERRORS


def from_answer(answer: httpx.Response, doing: str) -> ModelServeError:
    """The error that an answer other than 2xx stands for."""
    return error_of(answer.status_code, answer.content, doing, retry_after=answer.headers.get("retry-after", "1"))
