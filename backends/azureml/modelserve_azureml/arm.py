"""The resource manager: one call, one long operation, and what is tried again.

    ask ──► request ──429, 5xx, no connection──► again, a few times (nothing here does harm when it is done twice)
    operate ──► request ──409 "Updating"──► wait ──► 2xx ──► look at the operation ──► Succeeded, or the reason

What the service says of an operation's end is what counts; the answer that began it says only that it was begun.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from modelserve.backend import raising_ours
from modelserve.backend.transport import HTTPX_ERRORS
from modelserve.errors import BackendError, DeadlineError, DeploymentNotFoundError
from modelserve_azureml.credentials import Credentials
from modelserve_azureml.errors import from_answer, from_operation, is_updating
from modelserve_azureml.names import API_VERSION
from modelserve_azureml.reach import Reach

HOST = "https://management.azure.com"
_SCOPE = f"{HOST}/.default"
_TRIES = 4
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_CALL_S = 60.0
_LOOK_S = 5.0
_SHORT_S = 600.0


class Arm:
    """Talks to the resource manager. May be used from many threads."""

    def __init__(self, reach: Reach, credentials: Credentials) -> None:
        self._credentials = credentials
        self._client = httpx.Client(base_url=HOST, timeout=_CALL_S, **reach.for_httpx())
        # A backend is never closed; its connections go with it.
        weakref.finalize(self, self._client.close)

    def ask(self, method: str, path: str, json: Any = None, *, version: str = API_VERSION) -> Any:
        """The answer's content; None where it has none.

        Raises:
            ModelServeError: what the answer stands for otherwise.
        """
        return _content(self._sent(method, path, json, version, time.monotonic() + _SHORT_S))

    def find(self, path: str, *, version: str = API_VERSION) -> Any:
        """As `ask("GET", ...)`, and None for what is not there."""
        try:
            return self.ask("GET", path, version=version)
        except DeploymentNotFoundError:
            return None

    def every(self, path: str) -> list[Any]:
        """All pages of a list."""
        found: list[Any] = []
        target: str | None = path
        while target:
            page = self.ask("GET", target)
            found += page.get("value") or []
            target = page.get("nextLink")
        return found

    def operate(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        deadline: float,
        watch: Callable[[], None] | None = None,
        version: str = API_VERSION,
    ) -> None:
        """Start a long operation and wait for its end.

        Args:
            deadline: By the monotonic clock.
            watch: Called at each look, so that somebody can be told how far it is.

        Raises:
            DeadlineError: it was not over in time; it may go on.
            ModelServeError: it failed; the message is the service's.
        """
        doing = f"{method} {_short(path)}"
        answer = self._sent(method, path, json, version, deadline, while_updating=True)
        where = answer.headers.get("azure-asyncoperation") or answer.headers.get("location")
        if answer.status_code != httpx.codes.ACCEPTED and "azure-asyncoperation" not in answer.headers:
            return
        while where:
            found = self._sent("GET", where, None, "", deadline)
            if _is_over(found, doing):
                return
            if watch is not None:
                watch()
            _pause(found, deadline, doing)

    def _sent(
        self, method: str, path: str, json: Any, version: str, deadline: float, *, while_updating: bool = False
    ) -> httpx.Response:
        doing = f"{method} {_short(path)}"
        failures = 0
        while True:
            answer = self._tried(method, path, json, version, doing, last=failures + 1 >= _TRIES)
            if answer is not None and answer.is_success:
                return answer
            if answer is not None and while_updating and is_updating(answer):
                _pause(answer, deadline, doing)
                continue
            failures += 1
            if answer is not None and (answer.status_code not in _AGAIN or failures >= _TRIES):
                raise from_answer(answer, doing)
            _pause(answer, deadline, doing, default_s=2.0 ** (failures - 1))

    def _tried(
        self, method: str, path: str, json: Any, version: str, doing: str, *, last: bool
    ) -> httpx.Response | None:
        """None where no answer came and it may be tried again."""
        if "://" in path and not path.startswith(f"{HOST}/"):
            raise BackendError(f"{HOST} sends us on to {path.split('?')[0]!r}, which is not shown our token.")
        headers = {"authorization": f"Bearer {self._credentials.token(_SCOPE)}"}
        # As part of the address: httpx would put further parameters in the place of those that are there.
        target = _versioned(path, version)
        with raising_ours(HTTPX_ERRORS, doing):
            try:
                return self._client.request(method, target, json=json, headers=headers)
            except httpx.TransportError:
                if last:
                    raise
                return None


def _is_over(found: httpx.Response, doing: str) -> bool:
    """Whether an operation has ended well.

    Raises:
        ModelServeError: it ended otherwise.
    """
    status = (_content(found) or {}).get("status", "")
    if status in {"Failed", "Canceled"}:
        raise from_operation(_content(found), doing)
    # The address of a status always answers 200 and says it in the body; that of a result answers 202 until the end.
    return status == "Succeeded" or (not status and found.status_code != httpx.codes.ACCEPTED)


def _versioned(path: str, version: str) -> str:
    if not version or "api-version=" in path:
        return path
    return f"{path}{'&' if '?' in path else '?'}api-version={version}"


def _pause(answer: httpx.Response | None, deadline: float, doing: str, *, default_s: float = _LOOK_S) -> None:
    asked = "" if answer is None else answer.headers.get("retry-after", "")
    seconds = _number(asked, default_s)
    if time.monotonic() + seconds > deadline:
        raise DeadlineError(f"{doing} was not over in time; it may still go on there. Give a longer timeout_s.")
    time.sleep(seconds)


def _number(text: str, default: float) -> float:
    try:
        return min(60.0, max(0.02, float(text)))
    except ValueError:
        return default


def _content(answer: httpx.Response) -> Any:
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError:
        raise BackendError(
            f"{answer.request.url.host} answered {answer.status_code} with what is not JSON. "
            "Is there a proxy in between that asks for a sign-in?"
        ) from None


def _short(path: str) -> str:
    """A path without what is the same for all of a workspace."""
    return path.split("?")[0].partition("/workspaces/")[2] or path.rpartition("/providers/")[2].split("?")[0]


def merged(content: Mapping[str, Any], **properties: Any) -> dict[str, Any]:
    """What has to be sent to change these properties of a resource and nothing else of it.

    A body without its tags or traffic would take them away.
    """
    kept = {key: content[key] for key in ("location", "tags", "identity", "sku", "kind") if content.get(key)}
    if "identity" in kept:
        kept["identity"] = _identity(kept["identity"])
    own = {key: value for key, value in content["properties"].items() if key not in _READ_ONLY}
    return {**kept, "properties": {**own, **properties}}


_READ_ONLY = {"scoringUri", "swaggerUri", "provisioningState"}


def _identity(found: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"type": found["type"]}
    if found.get("userAssignedIdentities"):
        kept["userAssignedIdentities"] = {key: {} for key in found["userAssignedIdentities"]}
    return kept
