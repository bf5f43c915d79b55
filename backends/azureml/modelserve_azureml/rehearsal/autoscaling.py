"""Azure Monitor, as far as autoscale settings of deployments go: metrics minute by minute, and what their rules say.

    requests answered, processor time used ──a minute──► samples ──window──► rules ──► instances, within the bounds

An instance comes when any rule says so, and goes when all that take some away agree. Nobody is scaled while something
else is changed at the endpoint.
"""

from __future__ import annotations

import operator
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelserve_azureml.rehearsal.door import Door
from modelserve_azureml.rehearsal.fleets import Fleets
from modelserve_azureml.rehearsal.manager import Manager
from modelserve_azureml.validation import seconds

_MINUTE_S = 60.0
_LOOK_S = 0.02
_KEPT_MINUTES = 60
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqual": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqual": operator.le,
}
_TICKS = os.sysconf("SC_CLK_TCK")


class Autoscaling:
    """Keeps the settings of a workspace's deployments, in a thread of its own.

    Attributes:
        pace: Seconds of Azure for a second here.
    """

    def __init__(self, manager: Manager, fleets: Fleets, door: Door) -> None:
        self.pace = 1.0
        self._manager = manager
        self._fleets = fleets
        self._door = door
        self._samples: dict[tuple[str, str], deque[float]] = {}
        self._seen: dict[tuple[str, str], float] = {}
        self._changed: dict[str, float] = {}
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="azure-autoscaling", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_closing.set()
        self._thread.join()

    def _keep(self) -> None:
        last = time.monotonic()
        while not self._is_closing.wait(_LOOK_S):
            now = time.monotonic()
            if now - last >= _MINUTE_S / self.pace:
                for setting in self._manager.autoscale_settings():
                    self._follow(setting, now - last)
                last = now

    def _follow(self, setting: Mapping[str, Any], elapsed_s: float) -> None:
        """Look at one setting, a minute after the last time."""
        path = setting["properties"]["targetResourceUri"]
        deployment, fleet = self._manager.resources.get(path), self._fleets.find(path)
        if deployment is None or fleet is None or not setting["properties"].get("enabled", True):
            return
        capacity = int(deployment["sku"]["capacity"])
        profile = setting["properties"]["profiles"][0]
        processors = min(self._manager.account.size(deployment["properties"]["instanceType"])["vCPUs"], _processors())
        pids = [container.pid for container in fleet.containers]
        used = self._grown(path, "processors", _processor_time_s(pids))
        self._note(path, "CpuUtilizationPercentage", 100 * used / (elapsed_s * processors * max(1, len(pids))))
        endpoint = path.partition("/deployments/")[0]
        asked = self._grown(endpoint, "requests", self._door.answered(endpoint.rpartition("/")[2]))
        self._note(endpoint, "RequestsPerMinute", asked)
        rules = profile.get("rules") or []
        wanted = ruled(rules, capacity, self._average)
        cooldown = min((seconds(rule["scaleAction"]["cooldown"]) or 0 for rule in rules), default=0)
        is_resting = time.monotonic() < self._changed.get(path, -cooldown) + cooldown / self.pace
        low, high = (int(profile["capacity"][name]) for name in ("minimum", "maximum"))
        bounded = min(max(wanted if not is_resting else capacity, low), high)
        if bounded != capacity and self._manager.endpoints.scale_to(path, bounded):
            self._changed[path] = time.monotonic()

    def _average(self, trigger: Mapping[str, Any]) -> float | None:
        """A metric over a rule's window; None until so many minutes were seen."""
        samples = self._samples.get((trigger["metricResourceUri"].lower(), trigger["metricName"]), ())
        minutes = max(1, (seconds(trigger["timeWindow"]) or 60) // 60)
        return sum(list(samples)[-minutes:]) / minutes if len(samples) >= minutes else None

    def _note(self, path: str, metric: str, value: float) -> None:
        self._samples.setdefault((path.lower(), metric), deque(maxlen=_KEPT_MINUTES)).append(value)

    def _grown(self, path: str, what: str, now: float) -> float:
        """By how much a counter grew since the last minute; what ended meanwhile counts for nothing."""
        before, self._seen[path, what] = self._seen.get((path, what), now), now
        return max(0.0, now - before)


def ruled(
    rules: Sequence[Mapping[str, Any]], capacity: int, average: Callable[[Mapping[str, Any]], float | None]
) -> int:
    """How many instances rules ask for, bounds aside.

    Args:
        average: A trigger's metric over its window; None where it is not known.
    """

    def holds(rule: Mapping[str, Any], instances: int = capacity) -> bool:
        trigger = rule["metricTrigger"]
        value = average(trigger)
        if value is None:
            return False
        # What is there for each instance; a metric that is an average over them grows as they become fewer.
        value = value / instances if trigger.get("dividePerInstance") else value * capacity / instances
        return _OPERATORS[trigger["operator"]](value, float(trigger["threshold"]))

    more = [rule for rule in rules if rule["scaleAction"]["direction"] == "Increase"]
    fewer = [rule for rule in rules if rule["scaleAction"]["direction"] == "Decrease"]
    if any(holds(rule) for rule in more):
        return capacity + max(int(rule["scaleAction"]["value"]) for rule in more)
    if fewer and all(holds(rule) for rule in fewer):
        left = capacity - max(int(rule["scaleAction"]["value"]) for rule in fewer)
        # Not where those that are left would call for another one at once.
        return capacity if left < 1 or any(holds(rule, left) for rule in more) else left
    return capacity


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor_time_s(roots: Sequence[int]) -> float:
    """What processes and all that descend from them have used, as Linux tells; 0 elsewhere."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        pid = int(status.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        ticks[pid] = int(fields[11]) + int(fields[12])
    total, waiting = 0, list(roots)
    while waiting:
        pid = waiting.pop()
        total += ticks.get(pid, 0)
        waiting += children.get(pid, [])
    return total / _TICKS
