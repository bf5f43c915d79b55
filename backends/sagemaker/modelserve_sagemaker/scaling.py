"""How many machines, or how many requests at once where there are no machines to count.

    scale(3)                                          three machines
    scale(minimum=1, maximum=4, target_inflight=4)    target tracking by Application Auto Scaling
    serverless: scale(minimum=0, maximum=20)          at most 20 requests at once; a minimum is kept warm, and billed

A fixed number ends the tracking, which would undo it.
"""

from __future__ import annotations

from typing import Any

from modelserve.backend import Scale
from modelserve.errors import DeploymentNotFoundError, InvalidScaleError, NotSupportedError
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.limits import processors
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.plan import VARIANT

_NAMESPACE = "sagemaker"
_POLICY = "modelserve"
_DEFAULT_INFLIGHT = 4.0
_MOST_CONCURRENCY = 200
#: Our targets, as SageMaker measures them. https://docs.aws.amazon.com/autoscaling/application/APIReference
_METRICS = {
    "target_inflight": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
    "target_requests_per_minute": "SageMakerVariantInvocationsPerInstance",
}
#: Not among the predefined ones, and the sum over a machine's processors: 0 to 400 where there are four.
#: https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
_CPU_METRIC, _CPU_NAMESPACE = "CPUUtilization", "/aws/sagemaker/Endpoints"
_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
_SCALE_IN_COOLDOWN_S = 300
_SCALE_OUT_COOLDOWN_S = 60


def check(scale: Scale, options: SageMakerOptions) -> None:
    """Refuse what SageMaker cannot do in this mode.

    Raises:
        NotSupportedError, InvalidScaleError: the message says what it can.
    """
    if options.is_serverless:
        if scale.targets:
            raise NotSupportedError(
                "A serverless endpoint scales by itself. Give minimum and maximum without a target."
            )
        if scale.maximum > _MOST_CONCURRENCY:
            raise InvalidScaleError(f"A serverless endpoint answers at most {_MOST_CONCURRENCY} requests at once.")
        return
    if scale.minimum == 0:
        raise NotSupportedError(
            f"Endpoints in mode {options.mode.value!r} keep at least one machine here. "
            "Use mode = 'serverless', which rests by itself."
        )
    if "target_cpu" in scale.targets and processors(options.instance_type) is None:
        raise NotSupportedError(
            f"SageMaker adds up what each processor does, and how many {options.instance_type!r} has is not known "
            f"here. Scale by {' or '.join(_METRICS)}."
        )


def desired(scale: Scale, options: SageMakerOptions) -> dict[str, Any]:
    """The variant's wish in UpdateEndpointWeightsAndCapacities."""
    if not options.is_serverless:
        return {"VariantName": VARIANT, "DesiredInstanceCount": scale.minimum}
    serverless: dict[str, Any] = {"MaxConcurrency": scale.maximum}
    if scale.minimum:
        serverless["ProvisionedConcurrency"] = scale.minimum
    return {"VariantName": VARIANT, "ServerlessUpdateConfig": serverless}


def track(account: Account, endpoint: str, scale: Scale, machine: str) -> None:
    """Have Application Auto Scaling keep the machines between the bounds, near the target."""
    account.call(
        "application-autoscaling",
        "register_scalable_target",
        **_target(endpoint),
        MinCapacity=scale.minimum,
        MaxCapacity=scale.maximum,
    )
    account.call(
        "application-autoscaling",
        "put_scaling_policy",
        PolicyName=_POLICY,
        PolicyType="TargetTrackingScaling",
        **_target(endpoint),
        TargetTrackingScalingPolicyConfiguration={
            **_aim(endpoint, scale, machine),
            "ScaleInCooldown": _SCALE_IN_COOLDOWN_S,
            "ScaleOutCooldown": _SCALE_OUT_COOLDOWN_S,
        },
    )


def _aim(endpoint: str, scale: Scale, machine: str) -> dict[str, Any]:
    """The metric, and what it is to be."""
    if scale.target_cpu is None:
        target, value = next(iter(scale.targets.items()), ("target_inflight", _DEFAULT_INFLIGHT))
        return {
            "PredefinedMetricSpecification": {"PredefinedMetricType": _METRICS[target]},
            "TargetValue": float(value),
        }
    dimensions = {"EndpointName": endpoint, "VariantName": VARIANT}
    return {
        "CustomizedMetricSpecification": {
            "MetricName": _CPU_METRIC,
            "Namespace": _CPU_NAMESPACE,
            "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            "Statistic": "Average",
            "Unit": "Percent",
        },
        "TargetValue": scale.target_cpu * 100 * (processors(machine) or 1),
    }


def tracked(account: Account, endpoint: str, machine: str) -> Scale | None:
    """The bounds and the target that are kept now, on machines of that type; None where nothing is."""
    targets = account.call(
        "application-autoscaling",
        "describe_scalable_targets",
        ServiceNamespace=_NAMESPACE,
        ResourceIds=[_target(endpoint)["ResourceId"]],
    )["ScalableTargets"]
    if not targets:
        return None
    policies = account.call(
        "application-autoscaling",
        "describe_scaling_policies",
        ServiceNamespace=_NAMESPACE,
        ResourceId=_target(endpoint)["ResourceId"],
    )["ScalingPolicies"]
    said: dict[str, float] = {}
    for policy in policies:
        configuration = policy.get("TargetTrackingScalingPolicyConfiguration", {})
        metric = configuration.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
        said |= {name: configuration["TargetValue"] for name, known in _METRICS.items() if known == metric}
        if configuration.get("CustomizedMetricSpecification", {}).get("MetricName") == _CPU_METRIC:
            said["target_cpu"] = min(1.0, configuration["TargetValue"] / 100 / (processors(machine) or 1))
    return Scale(targets[0]["MinCapacity"], targets[0]["MaxCapacity"], **said)


def forget(account: Account, endpoint: str) -> None:
    """Let nothing scale it any more: before it is deleted, or set to a fixed number. Quiet when nothing does."""
    for operation, more in (("delete_scaling_policy", {"PolicyName": _POLICY}), ("deregister_scalable_target", {})):
        try:
            account.call("application-autoscaling", operation, **_target(endpoint), **more)
        except DeploymentNotFoundError:
            continue


def _target(endpoint: str) -> dict[str, str]:
    return {
        "ServiceNamespace": _NAMESPACE,
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": _DIMENSION,
    }
