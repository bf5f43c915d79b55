"""As many instances as a load needs: a setting of Azure Monitor beside the deployment, by a name that is always found.

https://learn.microsoft.com/azure/machine-learning/how-to-autoscale-endpoints
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelserve.backend import Scale
from modelserve.errors import NotSupportedError

API_VERSION = "2022-10-01"
#: target -> (metric, of the deployment or of the whole endpoint, factor from our unit to the metric's)
_METRICS: Mapping[str, tuple[str, float]] = {
    "target_cpu": ("CpuUtilizationPercentage", 100.0),
    "target_requests_per_minute": ("RequestsPerMinute", 1.0),
}
_DEFAULT_CPU = 0.6
#: Instances go when the load per instance is below this share of the target.
_LOW = 0.5
_SCALE_TAG = "modelserve-scale"


def setting(
    deployment: str, endpoint: str, region: str, scale: Scale, capacity: int, tags: Mapping[str, str]
) -> dict[str, Any]:
    """The setting for a deployment.

    Args:
        deployment: Its address.
        endpoint: The address of its endpoint, whose metrics count requests.
        capacity: Instances where no metric is known yet.

    Raises:
        NotSupportedError: the target is none that Azure measures.
    """
    name, value = target(scale)
    metric, factor = _METRICS[name]
    source = deployment if name == "target_cpu" else endpoint
    high = value * factor
    profile = {
        "name": "modelserve",
        "capacity": {"minimum": str(scale.minimum), "maximum": str(scale.maximum), "default": str(capacity)},
        "rules": [
            _rule(metric, source, "GreaterThan", high, "Increase"),
            _rule(metric, source, "LessThan", high * _LOW, "Decrease"),
        ],
    }
    return {
        "location": region,
        "tags": {**tags, _SCALE_TAG: _spelt(scale)},
        "properties": {"targetResourceUri": deployment, "enabled": True, "profiles": [profile]},
    }


def target(scale: Scale) -> tuple[str, float]:
    """What to aim at; a range without a target aims at the processors.

    Raises:
        NotSupportedError: it is none that Azure measures.
    """
    for name, value in scale.targets.items():
        if name not in _METRICS:
            raise NotSupportedError(
                f"Azure does not measure what {name} asks for. A managed endpoint takes {' or '.join(_METRICS)}."
            )
        return name, value
    return "target_cpu", _DEFAULT_CPU


def read(content: Mapping[str, Any]) -> Scale:
    """The scale that a setting keeps."""
    capacity = content["properties"]["profiles"][0]["capacity"]
    name, _, value = (content.get("tags") or {}).get(_SCALE_TAG, "").partition("=")
    given = {name: float(value)} if name in _METRICS else {}
    return Scale(int(capacity["minimum"]), int(capacity["maximum"]), **given)


def _spelt(scale: Scale) -> str:
    return "".join(f"{name}={value!r}" for name, value in scale.targets.items())


def _rule(metric: str, source: str, operator: str, threshold: float, direction: str) -> dict[str, Any]:
    return {
        "metricTrigger": {
            "metricName": metric,
            "metricResourceUri": source,
            "timeGrain": "PT1M",
            "statistic": "Average",
            "timeWindow": "PT5M",
            "timeAggregation": "Average",
            "operator": operator,
            "threshold": threshold,
            # Requests are counted for the endpoint as a whole, and the target is each instance's.
            "dividePerInstance": metric == "RequestsPerMinute",
        },
        "scaleAction": {"direction": direction, "type": "ChangeCount", "value": "1", "cooldown": "PT5M"},
    }
