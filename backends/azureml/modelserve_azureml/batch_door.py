"""The door of a batch endpoint: one request, and a job is under way."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx

from modelserve.backend import raising_ours
from modelserve.backend.transport import HTTPX_ERRORS
from modelserve_azureml.credentials import Credentials
from modelserve_azureml.errors import from_answer
from modelserve_azureml.reach import Reach
from modelserve_azureml.scoring import DEPLOYMENT_HEADER, ENTRA_SCOPE

_TRIES = 4
_CALL_S = 120.0
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


class BatchDoor:
    """Asks batch endpoints for jobs."""

    def __init__(self, reach: Reach, credentials: Credentials) -> None:
        self._credentials = credentials
        self._reach = reach

    def begin(self, uri: str, deployment: str, body: dict[str, Any], identity: str) -> str:
        """Have a job made; its name.

        Args:
            identity: The same for the same job: the service knows by it that a request came twice.
        """
        headers = {
            "authorization": f"Bearer {self._credentials.token(ENTRA_SCOPE)}",
            DEPLOYMENT_HEADER: deployment,
            "repeatability-request-id": str(uuid.uuid5(uuid.NAMESPACE_URL, identity)),
        }
        doing = f"Beginning a job at {uri}"
        with raising_ours(HTTPX_ERRORS, doing), httpx.Client(timeout=_CALL_S, **self._reach.for_httpx()) as client:
            for pause_s in (*(2.0**attempt for attempt in range(_TRIES - 1)), None):
                try:
                    answer = client.post(uri, json=body, headers=headers)
                except httpx.TransportError:
                    if pause_s is None:
                        raise
                else:
                    if answer.is_success:
                        return str(answer.json()["name"])
                    if pause_s is None or answer.status_code not in _AGAIN:
                        raise from_answer(answer, doing)
                time.sleep(pause_s)
        raise AssertionError("the last round answers or raises")
