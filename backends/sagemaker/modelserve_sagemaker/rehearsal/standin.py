"""One address that is AWS: by the operation, the stand-in's own SageMaker or moto; and faults before either."""

from __future__ import annotations

import json
from typing import Any

from modelserve.standin.faults import Failing, Fault, Faults, Interrupted, LostAnswer, NotYetSeen, Throttled, interrupt
from modelserve.standin.loopback import Answered, Broken, Exchange, LoopbackServer, answering
from modelserve_sagemaker.rehearsal.answers import AwsError, Call, answered, call_of, invalid, refused
from modelserve_sagemaker.rehearsal.autoscaling import SERVICE, Autoscaling
from modelserve_sagemaker.rehearsal.control import Control
from modelserve_sagemaker.rehearsal.door import Door
from modelserve_sagemaker.rehearsal.lives import Lives
from modelserve_sagemaker.rehearsal.logbook import Logbook
from modelserve_sagemaker.rehearsal.records import Records
from modelserve_sagemaker.rehearsal.transforms import Transforms
from modelserve_sagemaker.rehearsal.upstream import Upstream

_THROTTLED = {"s3": ("SlowDown", 503), "sts": ("Throttling", 400), "iam": ("Throttling", 400)}


class StandIn:
    """AWS, as far as SageMaker's endpoints need it, on 127.0.0.1.

    Attributes:
        faults: What is to go wrong; operations are named as in "sagemaker.CreateModel".
        quotas: What the account may have, by instance type.
    """

    def __init__(self, region: str, *, pace: float = 1.0) -> None:
        self.region = region
        self.faults = Faults()
        self.quotas: dict[str, float] = {}
        self.upstream = Upstream(region)
        self.records = Records(region)
        self.logbook = Logbook(self.upstream)
        self.lives = Lives(self.records, self.upstream, self.faults, self.logbook, pace)
        self.autoscaling = Autoscaling(self.records, self.lives.resize, pace)
        self.door = Door(self.records, self.upstream)
        self.transforms = Transforms(self.records, self.lives, self.upstream)
        self._control = Control(self.records, self.lives, self.transforms)
        self._server = LoopbackServer(answering(self._handle)).start()
        self.door.url = self._server.url

    @property
    def url(self) -> str:
        return self._server.url

    def close(self) -> None:
        self.autoscaling.close()
        self.transforms.close()
        self.lives.close()
        self._server.close()
        self.upstream.close()

    def _handle(self, exchange: Exchange) -> Answered:
        call = call_of(exchange)
        fault = self.faults.meet(call.name)
        try:
            _refuse(fault, call)
            answer = self._answer(call, exchange)
        except AwsError as error:
            answer = refused(error, call, exchange)
        if isinstance(fault, LostAnswer):
            raise Broken
        if isinstance(fault, Interrupted):
            interrupt()
        return answer

    def _answer(self, call: Call, exchange: Exchange) -> Answered:
        if call.service == "sagemaker":
            return answered(self._control.answer(call.operation, _content(exchange)))
        if call.service == "sagemaker-runtime":
            return self.door.answer(exchange)
        if call.service == SERVICE:
            return answered(self.autoscaling.answer(call.operation, _content(exchange)))
        if call.operation == "ListServiceQuotas":
            return answered(self._listed_quotas())
        if call.operation == "FilterLogEvents":
            self.logbook.write()
        return self.upstream.forward(exchange)

    def _listed_quotas(self) -> Any:
        return {
            "Quotas": [
                {"ServiceCode": "sagemaker", "QuotaName": f"{kind} for {purpose} usage", "Value": value}
                for kind, value in self.quotas.items()
                for purpose in ("endpoint", "transform job")
            ]
        }


def _content(exchange: Exchange) -> dict[str, Any]:
    content = json.loads(exchange.body or b"{}")
    assert isinstance(content, dict)
    return content


def _refuse(fault: Fault | None, call: Call) -> None:
    if isinstance(fault, Failing):
        raise AwsError(fault.code, fault.message, fault.status)
    if isinstance(fault, Throttled):
        code, status = _THROTTLED.get(call.service, ("ThrottlingException", 400))
        raise AwsError(code, "Rate exceeded", status)
    if isinstance(fault, NotYetSeen):
        raise invalid("Could not find what was asked for.")
