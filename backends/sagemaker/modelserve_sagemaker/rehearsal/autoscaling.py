"""Application Auto Scaling, as far as SageMaker's endpoints are concerned: what is registered, and that it is kept.

It does not scale by itself: whether a target is reached is for the real service to see.
"""

from __future__ import annotations

import threading
from typing import Any

from modelserve_sagemaker import traits
from modelserve_sagemaker.rehearsal.answers import AwsError
from modelserve_sagemaker.rehearsal.records import Records

SERVICE = "application-autoscaling"
Request = dict[str, Any]


class Autoscaling:
    """Targets and policies by resource."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._lock = threading.Lock()
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
