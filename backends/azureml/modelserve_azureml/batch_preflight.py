"""What is looked at before anything of a batch job is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modelserve.backend.preflight import Check, OnlyLive
from modelserve.errors import ConfigError, QuotaError
from modelserve_azureml import batch_bodies
from modelserve_azureml.policies import NEEDED_BATCH_ACTIONS
from modelserve_azureml.preflight import family_usage, machine_of, require_allowed
from modelserve_azureml.site import Site


def batch_checks(site: Site) -> Sequence[Check]:
    """The questions, in the order in which they make sense."""
    look = _Look(site)
    return [
        Check("roles", look.roles),
        Check("cluster", look.cluster),
        Check("request bodies", look.bodies),
    ]


@dataclass
class _Look:
    site: Site

    @cached_property
    def region(self) -> str:
        return self.site.region

    def roles(self) -> str:
        return require_allowed(self.site, NEEDED_BATCH_ACTIONS)

    def cluster(self) -> str:
        named = self.site.options.batch_cluster
        return self._named(named) if named else self._made()

    def bodies(self) -> str:
        options = self.site.options
        batch_bodies.cluster("ms-0", self.region, options, options.tags)
        batch_bodies.environment(options.tags)
        batch_bodies.endpoint("batch", self.region, options.tags)
        batch_bodies.deployment(
            self.region, options, model="m", environment="e", code="c", cluster="k", tags=options.tags
        )
        return "Microsoft's schema and the documented rules take them."

    def _named(self, name: str) -> str:
        found: Any = self.site.arm.find(self.site.workspace.compute(name))
        kind = None if found is None else found["properties"].get("computeType")
        if kind != "AmlCompute":
            raise ConfigError(
                f"The workspace has no cluster {name!r}{f' (it is {kind})' if kind else ''}. Correct the option "
                "batch_cluster, or leave it out: then one is made for each job."
            )
        size = found["properties"].get("properties") or {}
        most = (size.get("scaleSettings") or {}).get("maxNodeCount", 0)
        if most < self.site.options.batch_instances:
            raise ConfigError(
                f"Cluster {name!r} has at most {most} instances; batch_instances asks for "
                f"{self.site.options.batch_instances}."
            )
        return f"{name}: up to {most} x {size.get('vmSize')}."

    def _made(self) -> str:
        options = self.site.options
        machine = machine_of(self.site, self.region, options.batch_instance_type or options.instance_type)
        usage = family_usage(self.site, self.region, machine)
        if usage is None:
            raise OnlyLive(f"The service lists no usage of {machine['family']}.")
        # Of a cluster the service keeps no reserve.
        needed, free = options.batch_instances * int(machine["vCPUs"]), usage["limit"] - usage["currentValue"]
        if free < needed:
            raise QuotaError(
                f"{options.batch_instances} x {machine['name']} need {needed} processors of {machine['family']}, and "
                f"{free} of {usage['limit']} are free, the online endpoint's own taken off. Ask for more, or give "
                "batch_instance_type or batch_cluster."
            )
        return f"{needed} of {free} free processors of {machine['family']} are needed."
