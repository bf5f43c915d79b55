"""What an answer other than 2xx stands for: the runtime's own word, or that of the door in front of it.

    {"error": "...", "code": "overloaded"}                                       the runtime's
    {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "..."}}   Google's

They are told apart by their form.
"""

from __future__ import annotations

import json

import httpx

from modelserve.backend.oip import error_of
from modelserve.errors import BackendError, InputError, ModelServeError, NotReadyError

#: Of Google's answer while nothing is deployed.
_RESTS = "traffic_split"


def refusal(answer: httpx.Response, doing: str) -> ModelServeError:
    """The error that this answer stands for."""
    theirs = _doors_word(answer)
    if theirs is None:
        wait = answer.headers.get("retry-after", "1")
        return error_of(answer.status_code, answer.content, doing, retry_after=wait)
    if answer.status_code == 400:
        return _refused_request(theirs)
    # The door's statuses mean what they mean everywhere; only its body is of another form.
    return error_of(answer.status_code, json.dumps({"error": theirs}), doing)


def _refused_request(text: str) -> ModelServeError:
    if _RESTS in text:
        return NotReadyError(f"{text} Nothing is deployed to it now; scale() to 1 or more.")
    if "payload size" in text:
        return InputError(f"{text} Send fewer rows at once; a data set of any size goes through predict_dataset.")
    return BackendError(text)


def _doors_word(answer: httpx.Response) -> str | None:
    """What the door says; None where the container answered."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
