"""SageMaker's data plane: InvokeEndpoint to a container and back, with what SageMaker lets through and what it cuts.

Signatures are verified, headers that SageMaker strips are stripped, its limits of size and time are kept.
"""

from __future__ import annotations

import random
import re
import threading
import uuid
from collections.abc import Mapping
from urllib.parse import unquote

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from modelserve.standin.fleet import Fleet
from modelserve.standin.loopback import Answered, Exchange
from modelserve_sagemaker.limits import REQUEST_BYTES, TIMEOUT_S
from modelserve_sagemaker.options import Mode
from modelserve_sagemaker.rehearsal.answers import AwsError
from modelserve_sagemaker.rehearsal.records import ACCOUNT, EndpointRecord, Records
from modelserve_sagemaker.rehearsal.upstream import Upstream

ACCESS_KEY, SECRET_KEY = "AKIAREHEARSAL", "rehearsal"
#: Everything else a client sends is stripped on the way to the container.
_PASSES = {
    "content-type",
    "accept",
    "x-amzn-sagemaker-custom-attributes",
    "x-amzn-sagemaker-inference-id",
    "x-amzn-sagemaker-target-model",
    "x-amzn-sagemaker-session-id",
}
_PATH = re.compile(r"/endpoints/(?P<name>[^/]+)/(?P<kind>invocations|async-invocations)")
_SIGNED = re.compile(r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]+)")
_LOCATION = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)")
_INLINE_BYTES = 128_000


class Door:
    """Answers invocations.

    Attributes:
        url: Where clients reach the stand-in, as they signed it.
        timeout_s: Longest time for an answer; SageMaker's own unless a test has less of it.
    """

    def __init__(self, records: Records, upstream: Upstream) -> None:
        self._records = records
        self._upstream = upstream
        self.url = ""
        self.timeout_s = TIMEOUT_S[Mode.REAL_TIME]

    def answer(self, exchange: Exchange) -> Answered:
        """What a container answers, or SageMaker instead of it.

        Raises:
            AwsError: what SageMaker refuses.
        """
        found = _PATH.fullmatch(exchange.path)
        if found is None:
            raise AwsError("UnknownOperationException", f"This stand-in has no {exchange.path}.", 404)
        self._verify(exchange)
        record = self._served(unquote(found["name"]))
        if found["kind"] == "async-invocations":
            return self._later(record, exchange)
        mode = Mode.SERVERLESS if record.serverless else Mode.REAL_TIME
        if len(exchange.body) > REQUEST_BYTES[mode]:
            raise AwsError("ValidationError", f"Request body is larger than {REQUEST_BYTES[mode]} bytes.", 400)
        variant, fleet = self._chosen(record)
        answer = self._asked(fleet, exchange.body, exchange.headers)
        return Answered(200, answer.body, {**_typed(answer), "x-amzn-invoked-production-variant": variant})

    def _verify(self, exchange: Exchange) -> None:
        """Sign it again as botocore does, and compare."""
        authorization = exchange.headers.get("authorization", "")
        found = _SIGNED.search(authorization)
        if found is None:
            raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        names = found["headers"].split(";")
        request = AWSRequest(
            exchange.method,
            f"{self.url}{exchange.raw_path}",
            headers={name: exchange.headers[name] for name in names if name in exchange.headers},
            data=exchange.body,
        )
        request.context["timestamp"] = exchange.headers.get("x-amz-date", "")
        signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "sagemaker", self._records.region)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        if signer.signature(text, request) != found["signature"]:
            raise AwsError("SignatureDoesNotMatch", "The request signature we calculated does not match.", 403)

    def _served(self, name: str) -> EndpointRecord:
        record = self._records.endpoints.get(name)
        if record is None or not record.fleets or record.status == "Deleting":
            raise AwsError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.", 400)
        return record

    def _chosen(self, record: EndpointRecord) -> tuple[str, Fleet]:
        with self._records.lock:
            is_canary = record.canary and random.uniform(0, 100) < record.canary_percent  # noqa: S311  # no secret
            return next(iter((record.canary if is_canary else record.fleets).items()))

    def _asked(self, fleet: Fleet, body: bytes, headers: Mapping[str, str]) -> Answered:
        kept = {name: value for name, value in headers.items() if name in _PASSES}
        try:
            answer = fleet.forward("POST", "/invocations", kept, body, self.timeout_s)
        except httpx.TimeoutException:
            raise _model_error(0, "Your invocation timed out while waiting for a response from container.") from None
        except httpx.TransportError as error:
            raise _model_error(503, f"The container is gone: {error}") from None
        if answer.status >= 400:
            raise _model_error(answer.status, answer.body.decode(errors="replace"))
        return answer

    def _later(self, record: EndpointRecord, exchange: Exchange) -> Answered:
        config = self._records.get("endpoint-config", record.config_name).get("AsyncInferenceConfig")
        if config is None:
            raise AwsError("ValidationError", f"Endpoint {record.name} is not an asynchronous one.", 400)
        source = exchange.headers.get("x-amzn-sagemaker-inputlocation", "")
        if bool(source) == bool(exchange.body):
            raise AwsError("ValidationError", "Exactly one of Body and InputLocation must be given.", 400)
        if len(exchange.body) > _INLINE_BYTES:
            raise AwsError("ValidationError", f"Body is larger than {_INLINE_BYTES} bytes.", 400)
        name = str(uuid.uuid4())
        output = f"{config['OutputConfig']['S3OutputPath'].rstrip('/')}/{name}.out"
        failure = f"{config['OutputConfig']['S3FailurePath'].rstrip('/')}/{name}-error.out"
        threading.Thread(target=self._put, args=(record, exchange, source, output, failure), daemon=True).start()
        headers = {
            "content-type": "application/json",
            "x-amzn-sagemaker-outputlocation": output,
            "x-amzn-sagemaker-failurelocation": failure,
        }
        return Answered(202, f'{{"InferenceId":"{name}"}}'.encode(), headers)

    def _put(self, record: EndpointRecord, exchange: Exchange, source: str, output: str, failure: str) -> None:
        headers = {
            "content-type": exchange.headers.get("x-amzn-sagemaker-content-type", "application/octet-stream"),
            "accept": exchange.headers.get("x-amzn-sagemaker-accept", ""),
        }
        s3 = self._upstream.client("s3")
        body = exchange.body or s3.get_object(**_named(source))["Body"].read()
        try:
            answer = self._asked(self._chosen(record)[1], body, headers)
        except AwsError as error:
            s3.put_object(**_named(failure), Body=error.more.get("OriginalMessage", error.message).encode())
            return
        s3.put_object(**_named(output), Body=answer.body, ContentType=_typed(answer)["content-type"])


def _typed(answer: Answered) -> dict[str, str]:
    return {"content-type": answer.headers.get("content-type", "application/octet-stream")}


def _named(location: str) -> dict[str, str]:
    found = _LOCATION.fullmatch(location)
    assert found is not None
    return {"Bucket": found["bucket"], "Key": found["key"]}


def _model_error(status: int, message: str) -> AwsError:
    who = "client" if 400 <= status < 500 else "server"
    text = f'Received {who} error ({status}) from primary with message "{message[:1024]}".'
    return AwsError("ModelError", text, 424, {"OriginalStatusCode": status, "OriginalMessage": message})
