"""One account and region of AWS, as the options reach it.

    call("sagemaker", "create_model", ...)    sent once; sent again only where AWS did nothing (throttled), or where
                                              doing it twice is the same (a question whose answer was lost)

Inferences go by `invoke`, which signs and sends them itself.
"""

from __future__ import annotations

import random
import threading
import time
from functools import cached_property
from typing import Any

import boto3
from botocore import exceptions as vendor
from botocore.config import Config

from modelserve.backend import raising_ours
from modelserve_sagemaker.errors import VENDOR_ERRORS, is_throttled
from modelserve_sagemaker.options import SageMakerOptions

# botocore's own tries would send a create twice when its answer is lost, and an inference three times.
_ONCE = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 1},
    tcp_keepalive=True,
    user_agent_extra="modelserve",
)
_TRIES = 6
_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 8.0
#: What may be sent twice: questions, and what is the same when it is done again.
_REPEATABLE = ("describe_", "list_", "get_", "head_", "filter_", "put_object", "delete_object")
_LOST = (vendor.ConnectionError, vendor.HTTPClientError)


class Account:
    """The services of one account in one region."""

    def __init__(self, options: SageMakerOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}

    @cached_property
    def session(self) -> Any:
        """Credentials and region."""
        with raising_ours(VENDOR_ERRORS, "Reading the AWS configuration"):
            return boto3.Session(profile_name=self._options.profile, region_name=self._options.region)

    @property
    def region(self) -> str:
        return str(self.client("sagemaker").meta.region_name)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Who calls: `Account`, `Arn`."""
        return dict(self.call("sts", "get_caller_identity"))

    @property
    def number(self) -> str:
        return self.identity["Account"]

    @property
    def partition(self) -> str:
        """aws, aws-cn or aws-us-gov."""
        return self.identity["Arn"].split(":")[1]

    @property
    def registry(self) -> str:
        """The host of the account's container registry."""
        suffix = "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"
        return f"{self.number}.dkr.ecr.{self.region}.{suffix}"

    def arn(self, kind: str, name: str) -> str:
        """The name of a SageMaker resource in all of AWS."""
        return f"arn:{self.partition}:sagemaker:{self.region}:{self.number}:{kind}/{name.lower()}"

    def client(self, service: str) -> Any:
        """boto3's client; one for each service."""
        with self._lock:
            if service not in self._clients:
                with raising_ours(VENDOR_ERRORS, f"Opening the AWS service {service!r}"):
                    self._clients[service] = self.session.client(
                        service, endpoint_url=self._options.endpoint_url, config=_ONCE
                    )
            return self._clients[service]

    def call(self, service: str, operation: str, **parameters: Any) -> Any:
        """One call.

        Raises:
            ModelServeError: what AWS answered, or why there is no answer.
        """
        method = getattr(self.client(service), operation)
        is_repeatable = operation.startswith(_REPEATABLE)
        with raising_ours(VENDOR_ERRORS, f"{service}.{operation}"):
            for attempt in range(_TRIES):
                try:
                    return method(**parameters)
                except (vendor.ClientError, vendor.BotoCoreError) as error:
                    again = is_throttled(error) or (is_repeatable and isinstance(error, _LOST))
                    if not again or attempt == _TRIES - 1:
                        raise
                time.sleep(min(_LONGEST_PAUSE_S, _PAUSE_S * 2**attempt) * random.uniform(0.5, 1))  # noqa: S311  # no secret
        raise AssertionError  # the last attempt returns or raises

    def pages(self, service: str, operation: str, key: str, **parameters: Any) -> list[Any]:
        """Everything that a list operation lists."""
        found: list[Any] = []
        token: dict[str, str] = {}
        while True:
            answer = self.call(service, operation, **parameters, **token)
            found += answer.get(key, [])
            if not answer.get("NextToken"):
                return found
            token = {"NextToken": answer["NextToken"]}
