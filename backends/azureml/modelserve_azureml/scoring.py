"""The scoring door: a request in binary with its key, and what comes back.

    submit ──► key, from memory ──► POST https://<endpoint>.<region>.inference.ml.azure.com/score ──► Reply
                    └── 401: read the keys again, once, and ask again (nothing was run)

Nothing else is ever sent twice: an answer that did not come may have been computed all the same.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import Any

import httpx

from modelserve.backend import Reply, ReplyFuture, Request
from modelserve.backend.oip import DESCRIBE, sized_reply, sized_request
from modelserve.backend.transport import Transport, pooled_client
from modelserve_azureml.arm import Arm
from modelserve_azureml.credentials import Credentials
from modelserve_azureml.errors import from_score
from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.reach import Reach

ENTRA_SCOPE = "https://ml.azure.com/.default"
DEPLOYMENT_HEADER = "azureml-model-deployment"
_CONNECTIONS = 64


class Keys:
    """What callers of one endpoint show, read when it is first needed."""

    def __init__(self, arm: Arm, credentials: Credentials, endpoint: str, auth: str) -> None:
        self._arm = arm
        self._credentials = credentials
        self._path = endpoint
        self._auth = auth
        self._lock = threading.Lock()
        self._known = ""

    def get(self, *, refused: str = "") -> str:
        """A key or token; another one than `refused`, where there is another."""
        if self._auth == "AADToken":
            return self._credentials.token(ENTRA_SCOPE)
        with self._lock:
            if not self._known or self._known == refused:
                self._known = self._read()
            return self._known

    def _read(self) -> str:
        if self._auth == "AMLToken":
            return str(self._arm.ask("POST", f"{self._path}/token")["accessToken"])
        return str(self._arm.ask("POST", f"{self._path}/listKeys")["primaryKey"])


class Scoring:
    """Sends requests to one endpoint, from many threads and tasks at once."""

    def __init__(self, uri: str, keys: Keys, options: AzureMLOptions, reach: Reach) -> None:
        self._keys = keys
        self._uri = uri
        self._transport = Transport(
            lambda: pooled_client(uri, connections=_CONNECTIONS, **{"trust_env": True, **reach.for_httpx()}),
            server=uri,
            timeout_s=options.request_timeout_s,
        )

    def submit(self, request: Request, primary: str) -> ReplyFuture:
        """Send a request on its way."""
        media_type, content = sized_request(request.message, primary)
        return self._transport.start(self._asked(content, media_type, request.timeout_s))

    def describe(self, timeout_s: float) -> dict[str, Any]:
        """What the model that answers says of itself."""
        return self._transport.start(self._described(timeout_s)).result()

    def close(self) -> None:
        self._transport.close()

    async def _asked(self, content: bytes, kind: str, timeout_s: float) -> Reply:
        answer = await self._sent(content, kind, timeout_s)
        return sized_reply(answer.headers.get("content-type", ""), answer.content)

    async def _described(self, timeout_s: float) -> dict[str, Any]:
        content: dict[str, Any] = (await self._sent(b"{}", DESCRIBE, timeout_s)).json()
        return content

    async def _sent(self, content: bytes, kind: str, timeout_s: float) -> httpx.Response:
        key = await asyncio.to_thread(self._keys.get)
        answer = await self._posted(content, kind, key, timeout_s)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            key = await asyncio.to_thread(self._keys.get, refused=key)
            answer = await self._posted(content, kind, key, timeout_s)
        if not answer.is_success:
            raise from_score(answer)
        return answer

    async def _posted(self, content: bytes, kind: str, key: str, timeout_s: float) -> httpx.Response:
        headers = {
            "authorization": f"Bearer {key}",
            "content-type": kind,
            # By which one request is found in the service's logs; at most 40 letters, digits, '-' and '_'.
            "x-ms-client-request-id": uuid.uuid4().hex,
        }
        return await self._transport.ask("POST", "", content=content, headers=headers, timeout_s=timeout_s)
