"""Long operations: started, watched by their name, and taken up again by any process that knows it.

The service goes on with one whatever its caller does. Running out of time here is therefore no failure of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import aiplatform_v1 as v1

from modelserve.errors import DeadlineError
from modelserve_vertex.errors import asking
from modelserve_vertex.google import Google

_SLOWER = 1.5
_LONGEST_PAUSE_S = 20.0


class StillRunningError(DeadlineError):
    """The operation goes on; it was only waited for no longer."""


def wait(
    google: Google,
    operation: str,
    *,
    deadline: float,
    poll_s: float,
    on_stage: Callable[[str], None] | None = None,
) -> None:
    """Return when it is done.

    Args:
        operation: Its resource name.
        deadline: On the monotonic clock.
        on_stage: Told each stage that a deploy reaches, in words.

    Raises:
        StillRunningError: it is not done by then; nothing was stopped.
        GoogleAPICallError: it failed.
    """
    told, pause_s = "", poll_s
    while True:
        found = google.endpoints.get_operation({"name": operation}, **google.reading)
        if found.done:
            _raise_failure(found)
            return
        stage = stage_of(found)
        if stage and stage != told and on_stage is not None:
            on_stage(stage)
        told = stage
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise StillRunningError(
                f"It is not done in time and goes on by itself, as {operation}. Serve again under the same name to "
                "wait for it further, or give a longer timeout_s."
            )
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * _SLOWER, _LONGEST_PAUSE_S)


def running_deploy(google: Google, endpoint: str) -> str | None:
    """The name of a deploy to this endpoint that is still under way, whoever began it."""
    found = _running_deploy(google, endpoint)
    return None if found is None else str(found.name)


def running_deploy_stage(google: Google, endpoint: str) -> str | None:
    """How far a deploy that is under way has come; None where none is."""
    found = _running_deploy(google, endpoint)
    return None if found is None else stage_of(found)


def _running_deploy(google: Google, endpoint: str) -> Any | None:
    with asking(f"Looking for operations of {endpoint}"):
        found = google.endpoints.list_operations({"name": endpoint, "filter": "done=false"}, **google.reading)
    kind = v1.DeployModelOperationMetadata.pb().DESCRIPTOR
    return next((one for one in found.operations if not one.done and one.metadata.Is(kind)), None)


def stage_of(operation: Any) -> str:
    """How far a deploy has come, in words; empty for other operations."""
    metadata = v1.DeployModelOperationMetadata.pb()()
    if not operation.metadata.Is(metadata.DESCRIPTOR):
        return ""
    operation.metadata.Unpack(metadata)
    stage = v1.DeployModelOperationMetadata.wrap(metadata).deployment_stage
    return "" if not stage else stage.name.replace("_", " ").capitalize()


def _raise_failure(operation: Any) -> None:
    if operation.HasField("error"):
        raise google_errors.from_grpc_status(operation.error.code, operation.error.message)
