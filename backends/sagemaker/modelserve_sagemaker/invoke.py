"""Asking an endpoint: signed, over pooled connections, and never twice.

    request ──► buffers joined, SigV4 ──► InvokeEndpoint ──► 200: reply
                                                         └──► 424: what our runtime itself answered, by its own code

botocore signs; the talking is the core's, so that a request costs no thread. Only what AWS did not pass on to a
container may be sent again, and the caller knows best whether: such errors are `retryable`.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from modelserve.backend import Reply, ReplyFuture, Request, oip
from modelserve.backend.transport import Transport, pooled_client
from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    DeadlineError,
    DeploymentNotFoundError,
    InputError,
    ModelServeError,
    NotReadyError,
    OverloadedError,
)
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.limits import SOCKET_GRACE_S, TIMEOUT_S
from modelserve_sagemaker.options import Mode

_CONNECTIONS = 64
_SIGNING_NAME = "sagemaker"


class Door:
    """Asks one endpoint."""

    def __init__(self, account: Account, endpoint: str) -> None:
        self._account = account
        self._endpoint = endpoint
        self._url = str(account.client("sagemaker-runtime").meta.endpoint_url).rstrip("/")
        self._path = f"/endpoints/{quote(endpoint, safe='')}/invocations"
        self._transport = Transport(
            lambda: pooled_client(self._url, connections=_CONNECTIONS, trust_env=True),
            server=self._url,
            timeout_s=TIMEOUT_S[Mode.REAL_TIME] + SOCKET_GRACE_S,
        )

    def submit(self, request: Request, primary: str) -> ReplyFuture:
        """Send it on its way.

        Raises:
            DeploymentClosedError: the endpoint was closed.
            AccessDeniedError: there are no credentials.
        """
        media_type, body = oip.sized_request(request.message, primary)
        headers = {"Content-Type": media_type, "Accept": media_type.partition(";")[0]}
        return self._transport.start(self._ask(body, self.signed("POST", self._path, headers, body), request.timeout_s))

    def signed(self, method: str, path: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """The headers, signed; in the caller's thread, since credentials may have to be fetched."""
        credentials = self._account.session.get_credentials()
        if credentials is None:
            raise AccessDeniedError("There are no AWS credentials. Set AWS_PROFILE, or log in.")
        request = AWSRequest(method, f"{self._url}{path}", headers=headers, data=body)
        SigV4Auth(credentials.get_frozen_credentials(), _SIGNING_NAME, self._account.region).add_auth(request)
        return dict(request.headers.items())

    def close(self) -> None:
        self._transport.close()

    async def _ask(self, body: bytes, headers: dict[str, str], timeout_s: float) -> Reply:
        answer = await self._transport.ask("POST", self._path, content=body, headers=headers, timeout_s=timeout_s)
        if answer.status_code == 200:
            return oip.sized_reply(answer.headers.get("content-type", ""), answer.content)
        raise error_from(answer, self._endpoint)


def error_from(answer: httpx.Response, endpoint: str) -> ModelServeError:
    """What an answer of InvokeEndpoint other than 200 stands for."""
    said = _parsed(answer)
    message = str(said.get("Message") or said.get("message") or answer.text[:500])
    doing = f"Asking {endpoint!r}"
    if answer.status_code == 424:
        return _from_container(said, message, doing)
    kind = answer.headers.get("x-amzn-errortype", "").partition(":")[0] or str(said.get("__type", ""))
    if answer.status_code == 429 and kind == "ModelNotReadyException":
        return NotReadyError(f"{doing}: {message} It is being woken; ask again.")
    if answer.status_code in {429, 503} or kind == "ThrottlingException":
        return OverloadedError(f"{doing}: {message}")
    if answer.status_code == 403:
        return AccessDeniedError(f"{doing}: {message} 'modelserve policy' prints the rights that are needed.")
    if answer.status_code == 400:
        is_missing = "not found" in message
        return DeploymentNotFoundError(f"{doing}: {message}") if is_missing else InputError(f"{doing}: {message}")
    return BackendError(f"{doing}: AWS answered {answer.status_code} {kind}. {message}")


def _from_container(said: dict[str, Any], message: str, doing: str) -> ModelServeError:
    status, original = said.get("OriginalStatusCode", 0), str(said.get("OriginalMessage", ""))
    if not status:
        return DeadlineError(
            f"{doing}: the model gave no answer within SageMaker's {TIMEOUT_S[Mode.REAL_TIME]:g} s. "
            "Ask fewer rows at once, or serve it in mode = 'asynchronous'."
        )
    if status in {502, 503} and not original.startswith("{"):
        return NotReadyError(f"{doing}: the machine that had this request is gone. {message}")
    if original.startswith("{"):
        return oip.error_of(status, original, doing)
    return oip.error_of(status, json.dumps({"error": f"{doing}: {message}"}), doing)


def _parsed(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
