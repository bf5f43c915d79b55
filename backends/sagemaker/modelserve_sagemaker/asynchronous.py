"""Asking an asynchronous endpoint: the question goes to S3, the answer comes from there, up to an hour later.

    submit ──► small: inline, large: s3://.../questions/<id> ──► InvokeEndpointAsync ──► 202
                                    s3://.../<id>.out   or   .../<id>-error.out ──► reply, or what the model refused

Both keys are looked for: a failure never shows as an answer that does not come.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any
from urllib.parse import quote, urlsplit

from modelserve.backend import Reply, ReplyFuture, Request, oip
from modelserve.backend.transport import Answer, Transport, pooled_client
from modelserve.errors import DeadlineError, DeploymentNotFoundError, ModelServeError
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.limits import TIMEOUT_S
from modelserve_sagemaker.options import Mode
from modelserve_sagemaker.storage import Storage

#: The largest body that travels with the call itself. https://docs.aws.amazon.com/sagemaker/latest/APIReference
_INLINE_BYTES = 128_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GROWTH = 0.1, 10.0, 1.5
_SHORTEST_TTL_S, _LONGEST_TTL_S = 60, 21_600
_LONGEST_INVOCATION_S = 3600


class AsynchronousDoor:
    """Asks one asynchronous endpoint. S3 is asked by boto3, in the few threads of asyncio's own pool."""

    def __init__(self, account: Account, endpoint: str, storage: Storage) -> None:
        self._account = account
        self._endpoint = endpoint
        self._storage = storage
        self._transport = Transport(
            lambda: pooled_client("", connections=1), server=endpoint, timeout_s=TIMEOUT_S[Mode.ASYNCHRONOUS]
        )

    def submit(self, request: Request, primary: str) -> ReplyFuture:
        """Send it on its way."""
        media_type, body = oip.sized_request(request.message, primary)
        answer: Answer[Reply] = self._transport.start(self._ask(media_type, body, request.timeout_s))
        return answer

    def close(self) -> None:
        self._transport.close()

    async def _ask(self, media_type: str, body: bytes, timeout_s: float) -> Reply:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._asked(media_type, body, timeout_s)
        except TimeoutError:
            raise DeadlineError(
                f"Asking {self._endpoint!r}: no answer within {timeout_s:g} s. It is put into S3 all the same."
            ) from None

    async def _asked(self, media_type: str, body: bytes, timeout_s: float) -> Reply:
        source = ""
        if len(body) > _INLINE_BYTES:
            source = f"{self._storage.location}/questions/{uuid.uuid4()}"
            await asyncio.to_thread(self._put, source, body)
        try:
            told = await asyncio.to_thread(self._invoke, media_type, body, source, timeout_s)
            return await self._awaited(told["OutputLocation"], told["FailureLocation"])
        finally:
            if source:
                await asyncio.to_thread(self._remove, source)

    def _invoke(self, media_type: str, body: bytes, source: str, timeout_s: float) -> Any:
        what: dict[str, Any] = {"InputLocation": source} if source else {"Body": body}
        return self._account.call(
            "sagemaker-runtime",
            "invoke_endpoint_async",
            EndpointName=self._endpoint,
            ContentType=media_type,
            Accept=media_type.partition(";")[0],
            InvocationTimeoutSeconds=max(1, min(_LONGEST_INVOCATION_S, int(timeout_s))),
            RequestTTLSeconds=max(_SHORTEST_TTL_S, min(_LONGEST_TTL_S, int(timeout_s))),
            **what,
        )

    async def _awaited(self, output: str, failure: str) -> Reply:
        pause_s = _FIRST_PAUSE_S
        while True:
            found = await asyncio.to_thread(self._get, output)
            if found is not None:
                return oip.sized_reply(found[1], found[0])
            refused = await asyncio.to_thread(self._get, failure)
            if refused is not None:
                raise oip.error_of(500, refused[0], f"Asking {self._endpoint!r}")
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * _GROWTH)

    def _put(self, location: str, body: bytes) -> None:
        self._account.call("s3", "put_object", **_named(location), Body=body)

    def _get(self, location: str) -> tuple[bytes, str] | None:
        """Content and media type; None where it is not there yet, after which nothing asks for it again."""
        try:
            answer = self._account.call("s3", "get_object", **_named(location))
        except DeploymentNotFoundError:
            return None
        content = answer["Body"].read()
        self._remove(location)
        return content, str(answer.get("ContentType", ""))

    def _remove(self, location: str) -> None:
        try:
            self._account.call("s3", "delete_object", **_named(location))
        except ModelServeError:
            return  # what is left is deleted with the deployment


def _named(location: str) -> dict[str, str]:
    parts = urlsplit(quote(location, safe=":/"))
    return {"Bucket": parts.netloc, "Key": location.partition(f"{parts.netloc}/")[2]}
