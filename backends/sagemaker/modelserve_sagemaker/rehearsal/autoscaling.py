"""Application Auto Scaling, as far as SageMaker's endpoints are concerned: what is registered, and target tracking.

    requests under way, or processors at work  ──every 10 s, beside the target──►  more machines soon, fewer after a
                                                                                   cool-down

Of the metrics these two are measured here: the processors are this machine's.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from modelserve.standin.fleet import Fleet
from modelserve_sagemaker import traits
from modelserve_sagemaker.rehearsal.answers import AwsError
from modelserve_sagemaker.rehearsal.records import EndpointRecord, Records

SERVICE = "application-autoscaling"
Request = dict[str, Any]
#: Has `record` run this many machines of a variant.
Resize = Callable[[EndpointRecord, dict[str, dict[str, Any]]], None]

_LOOK_EVERY_S = 10.0
_MEASURED = "SageMakerVariantConcurrentRequestsPerModelHighResolution"


class Autoscaling:
    """Targets and policies by resource; a thread of its own keeps them.

    Args:
        pace: Seconds of AWS for a second here.
    """

    def __init__(self, records: Records, resize: Resize, pace: float) -> None:
        self._records = records
        self._resize = resize
        self._pace = pace
        self._lock = threading.Lock()
        self._changed: dict[str, float] = {}
        self._spent: dict[str, tuple[float, dict[str, float]]] = {}
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="modelserve-autoscaling", daemon=True)
        self._thread.start()
        self.targets: dict[tuple[str, str], Request] = {}
        self.policies: dict[tuple[str, str], dict[str, Request]] = {}

    def answer(self, operation: str, request: Request) -> Any:
        """What the service answers.

        Raises:
            AwsError: what it refuses.
        """
        operations = {
            "RegisterScalableTarget": self._register,
            "DescribeScalableTargets": self._describe_targets,
            "DeregisterScalableTarget": self._deregister,
            "PutScalingPolicy": self._put_policy,
            "DescribeScalingPolicies": self._describe_policies,
            "DeleteScalingPolicy": self._delete_policy,
        }
        if operation not in operations:
            raise AwsError("UnknownOperationException", f"This stand-in has no {operation}.")
        found = traits.problems(SERVICE, operation, request)
        if found:
            raise AwsError("ValidationException", f"{len(found)} validation error(s) detected: {'; '.join(found)}")
        with self._lock:
            return operations[operation](request) or {}

    def close(self) -> None:
        self._is_closing.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._is_closing.wait(_LOOK_EVERY_S / self._pace):
            with self._lock:
                kept = [
                    (self.targets[key], policy) for key, found in self.policies.items() for policy in found.values()
                ]
            for target, policy in kept:
                self._track(target, policy["TargetTrackingScalingPolicyConfiguration"])

    def _track(self, target: Request, policy: Request) -> None:
        _, name, _, variant = target["ResourceId"].split("/")
        record = self._records.endpoints.get(name)
        if record is None or record.status != "InService" or variant not in record.fleets:
            return
        fleet = record.fleets[variant]
        measured = self._measured(fleet, policy)
        if measured is None:
            return
        wanted = min(max(math.ceil(measured / policy["TargetValue"]), target["MinCapacity"]), target["MaxCapacity"])
        cooldown = policy.get("ScaleInCooldown" if wanted < fleet.wanted else "ScaleOutCooldown", 0) / self._pace
        if wanted == fleet.wanted or time.monotonic() < self._changed.get(name, -math.inf) + cooldown:
            return
        self._changed[name] = time.monotonic()
        with self._records.lock:
            if record.status != "InService":
                return
            record.move("Updating")
        self._resize(record, {variant: {"VariantName": variant, "DesiredInstanceCount": wanted}})

    def _measured(self, fleet: Fleet, policy: Request) -> float | None:
        """The sum over the machines; None where it is not measured, or not yet."""
        if policy.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType") == _MEASURED:
            return sum(container.inflight for container in fleet.containers)
        if policy.get("CustomizedMetricSpecification", {}).get("MetricName") != "CPUUtilization":
            return None
        now, spent = time.monotonic(), {one.name: one.processor_s for one in fleet.containers}
        then, before = self._spent.get(fleet.name, (now, {}))
        self._spent[fleet.name] = (now, spent)
        if now == then:
            return None
        return 100 * sum(spent[name] - before.get(name, spent[name]) for name in spent) / (now - then)

    def _register(self, request: Request) -> Any:
        if request["MinCapacity"] > request["MaxCapacity"]:
            raise AwsError("ValidationException", "Maximum capacity cannot be less than minimum capacity.")
        endpoint = request["ResourceId"].split("/")[1]
        if endpoint not in self._records.endpoints:
            raise AwsError("ValidationException", f"No endpoint {endpoint} found.")
        self.targets[_key(request)] = {**request, "CreationTime": 0}
        return {"ScalableTargetARN": f"arn:aws:{SERVICE}:{self._records.region}:scalable-target/{endpoint}"}

    def _describe_targets(self, request: Request) -> Any:
        wanted = request.get("ResourceIds")
        found = [target for (resource, _), target in self.targets.items() if not wanted or resource in wanted]
        return {"ScalableTargets": found}

    def _deregister(self, request: Request) -> Any:
        if _key(request) not in self.targets:
            raise AwsError("ObjectNotFoundException", f"No scalable target found for {request['ResourceId']}.")
        del self.targets[_key(request)]
        self.policies.pop(_key(request), None)

    def _put_policy(self, request: Request) -> Any:
        if _key(request) not in self.targets:
            raise AwsError("ObjectNotFoundException", f"No scalable target registered for {request['ResourceId']}.")
        arn = f"arn:aws:autoscaling:{self._records.region}:scalingPolicy:{request['PolicyName']}"
        kept = {**request, "PolicyARN": arn, "CreationTime": 0}
        self.policies.setdefault(_key(request), {})[request["PolicyName"]] = kept
        return {"PolicyARN": arn, "Alarms": []}

    def _describe_policies(self, request: Request) -> Any:
        resource = request.get("ResourceId")
        found = [
            policy
            for (owner, _), policies in self.policies.items()
            if resource in {None, owner}
            for policy in policies.values()
        ]
        return {"ScalingPolicies": found}

    def _delete_policy(self, request: Request) -> Any:
        if request["PolicyName"] not in self.policies.get(_key(request), {}):
            raise AwsError("ObjectNotFoundException", f"No scaling policy found with name {request['PolicyName']}.")
        del self.policies[_key(request)][request["PolicyName"]]


def _key(request: Request) -> tuple[str, str]:
    return request["ResourceId"], request["ScalableDimension"]
