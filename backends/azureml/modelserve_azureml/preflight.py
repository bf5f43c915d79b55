"""What is looked at before anything is created or billed."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modelserve.backend import DeploymentSpec
from modelserve.backend.preflight import Check, OnlyLive, Skipped
from modelserve.bundle import Bundle
from modelserve.errors import AccessDeniedError, ConfigError, InputError, OutOfMemoryError, QuotaError
from modelserve.image import refuse_accelerator
from modelserve.wire import encode_request
from modelserve_azureml import bodies, deploying
from modelserve_azureml.arm import HOST
from modelserve_azureml.credentials import Credentials
from modelserve_azureml.images import registry
from modelserve_azureml.limits import ADMITTED_PER_SLOT, BANDWIDTH_BYTES_PER_S, NO_RESERVE, QUOTA_FACTOR, TOO_SMALL
from modelserve_azureml.names import deployment_name
from modelserve_azureml.policies import NEEDED_ACTIONS
from modelserve_azureml.site import Site

_PROVIDERS_VERSION = "2021-04-01"
_PERMISSIONS_VERSION = "2022-04-01"
_MIB = 1 << 20
_WORKER_BYTES = 150 * _MIB
_USABLE = 0.8


def checks(
    site: Site, credentials: Credentials, bundle: Bundle, spec: DeploymentSpec, endpoint: str
) -> Sequence[Check]:
    """The questions, in the order in which they make sense."""
    look = _Look(site, credentials, bundle, spec, endpoint)
    return [
        Check("sign-in", look.sign_in),
        Check("workspace", look.workspace),
        Check("provider", look.provider),
        Check("roles", look.roles),
        Check("instance type", look.size),
        Check("quota", look.quota),
        Check("memory", look.memory),
        Check("name", look.name),
        Check("name in the region", look.name_in_region),
        Check("image", look.image),
        Check("request bodies", look.bodies),
        Check("example's payload", look.payload),
    ]


def update_checks(site: Site, instances: int) -> Sequence[Check]:
    """What a new version needs beside the old one, which goes on until the new one has taken over.

    Args:
        instances: Of the new version.
    """

    def quota() -> str:
        region = site.region
        machine = machine_of(site, region, site.options.instance_type)
        try:
            return require_quota(site, region, machine, instances)
        except QuotaError as error:
            raise QuotaError(f"The new version runs beside the old one for a while. {error}") from None

    return [Check("quota", quota)]


@dataclass
class _Look:
    site: Site
    credentials: Credentials
    bundle: Bundle
    spec: DeploymentSpec
    endpoint: str

    @property
    def instances(self) -> int:
        return 1 if self.spec.scale is None else self.spec.scale.maximum

    @cached_property
    def found(self) -> Any:
        """The workspace."""
        return self.site.arm.ask("GET", self.site.workspace.path)

    @cached_property
    def machine(self) -> Any:
        return machine_of(self.site, self.found["location"], self.site.options.instance_type)

    def sign_in(self) -> str:
        self.credentials.token(f"{HOST}/.default")
        return "Azure gave a token."

    def workspace(self) -> str:
        state = self.found["properties"].get("provisioningState", "Succeeded")
        if state != "Succeeded":
            raise ConfigError(f"Workspace {self.found['name']!r} is {state}; it must be ready.")
        return f"{self.found['name']} in {self.found['location']}."

    def provider(self) -> str:
        needed = ["Microsoft.MachineLearningServices"]
        if self.spec.scale is not None and not self.spec.scale.is_fixed:
            needed.append("Microsoft.Insights")
        for name in needed:
            path = f"/subscriptions/{self.site.workspace.subscription}/providers/{name}"
            state = _seen(self.site, path, _PROVIDERS_VERSION)["registrationState"]
            if state != "Registered":
                raise ConfigError(
                    f"{name} is {state} in this subscription. Register it: az provider register --namespace {name}"
                )
        return f"{', '.join(needed)}: registered."

    def roles(self) -> str:
        return require_allowed(self.site, NEEDED_ACTIONS)

    def size(self) -> str:
        machine = self.machine
        if machine["name"] in TOO_SMALL:
            raise ConfigError(f"{machine['name']} is too small for a managed endpoint. Take Standard_F4s_v2 or larger.")
        return f"{machine['name']}: {machine['vCPUs']} processors, {machine['memoryGB']:g} GB{_price(machine)}."

    def quota(self) -> str:
        return require_quota(self.site, self.found["location"], self.machine, self.instances)

    def memory(self) -> str:
        machine, options = self.machine, self.site.options
        workers = options.workers or min(8, int(machine["vCPUs"]))
        model = sum(file.stat().st_size for file in self.bundle.path.rglob("*") if file.is_file())
        # Workers map one copy of the weights; what a session makes of them for itself is reckoned as half as much.
        needed = model + workers * (_WORKER_BYTES + model // 2)
        usable = int(machine["memoryGB"] * 1e9 * _USABLE)
        text = f"{workers} workers with a model of {model / 1e6:,.0f} MB take some {needed / 1e9:.1f} GB"
        if needed > usable:
            raise OutOfMemoryError(
                f"{text}, and {machine['name']} has {usable / 1e9:.1f} GB for it. Take fewer workers."
            )
        return f"{text} of {usable / 1e9:.1f} GB."

    def name(self) -> str:
        content = self.site.arm.find(self.site.workspace.endpoint(self.endpoint))
        if content is None:
            return f"{self.endpoint} is free in the workspace."
        deploying.require_ours(content, self.spec.name)
        return f"{self.endpoint} is there, and is this deployment's."

    def name_in_region(self) -> str:
        raise OnlyLive("Names are unique in a region; Azure tells only when the endpoint is created.")

    def image(self) -> str:
        if self.site.options.image:
            return f"{self.site.options.image}, as given."
        if self.machine["gpus"]:
            refuse_accelerator(f"Instance type {self.machine['name']!r}")
        return f"The runtime's, in {registry(self.site)}; it is built and pushed where it is missing."

    def bodies(self) -> str:
        options, region = self.site.options, self.found["location"]
        tags = dict(options.tags)
        bodies.environment(options.image or "registry/image", tags)
        bodies.endpoint(self.endpoint, region, options, tags)
        name, capacity = deployment_name(self.bundle.digest), self.instances
        bodies.deployment(name, region, options, model="m", environment="e", capacity=capacity, tags=tags)
        return "Microsoft's schema and the documented rules take them."

    def payload(self) -> str:
        size, limit = encode_request(self.bundle.example()).size_bytes, self.site.options.max_body_mib * _MIB
        if size > limit:
            raise InputError(f"The example has {size} bytes; the option max_body_mib allows {limit}.")
        if not size:
            raise Skipped("The bundle has no example.")
        rate = BANDWIDTH_BYTES_PER_S / size
        slots = self.site.options.max_concurrent_requests * self.instances * ADMITTED_PER_SLOT
        return (
            f"The example has {size} bytes, of {limit} that we allow; Azure's bandwidth carries some {rate:,.0f} such "
            f"requests a second, and {slots} may be under way or wait."
        )


def machine_of(site: Site, region: str, wanted: str) -> Any:
    """An instance type as the region offers it.

    Raises:
        ConfigError: it does not.
    """
    sizes = site.arm.every(f"{site.workspace.location(region)}/vmSizes")
    found = next((size for size in sizes if size["name"].lower() == wanted.lower()), None)
    if found is None:
        near = sorted(size["name"] for size in sizes)[:8]
        raise ConfigError(f"{region} has no {wanted!r}. Give another instance_type, such as {', '.join(near)}.")
    return found


def family_usage(site: Site, region: str, machine: Any) -> Any:
    """How much of an instance type's family is in use; None where the service does not list it."""
    usages = site.arm.every(f"{site.workspace.location(region)}/usages")
    return next((one for one in usages if one["name"]["value"].lower() == machine["family"].lower()), None)


def require_quota(site: Site, region: str, machine: Any, instances: int) -> str:
    """Refuse more further instances of an endpoint than the subscription may have.

    Raises:
        QuotaError: it may have less.
        OnlyLive: the service does not say.
    """
    own = family_usage(site, region, machine)
    if own is None:
        raise OnlyLive(f"The service lists no usage of {machine['family']}.")
    needed, free = _cores(machine, instances), own["limit"] - own["currentValue"]
    if free < needed:
        raise QuotaError(
            f"{instances} x {machine['name']} need {needed} processors of {machine['family']}, the service's "
            f"reserve included, and {free} of {own['limit']} are free. Ask for more, or take another instance_type."
        )
    return f"{needed} of {free} free processors of {machine['family']} are needed."


def require_allowed(site: Site, needed: Sequence[str]) -> str:
    """Refuse what this caller may not do in the workspace.

    Raises:
        AccessDeniedError: naming it.
        OnlyLive: the caller may not even look.
    """
    path = f"{site.workspace.path}/providers/Microsoft.Authorization/permissions"
    given = _seen(site, path, _PERMISSIONS_VERSION).get("value") or []
    lacks = [action for action in needed if not any(_allows(one, action) for one in given)]
    if lacks:
        raise AccessDeniedError(
            f"This caller may not {', '.join(lacks)}. `modelserve policy` prints the roles that are needed."
        )
    return f"{len(needed)} actions are allowed."


def _seen(site: Site, path: str, version: str) -> Any:
    """What stands at a path, where this caller may look: not being allowed to look hinders no deploy."""
    try:
        return site.arm.ask("GET", path, version=version)
    except AccessDeniedError as error:
        raise OnlyLive(f"This caller may not look: {error}") from None


def _cores(machine: Any, instances: int) -> int:
    is_exempt = machine["name"].startswith(NO_RESERVE)
    return (instances if is_exempt else math.ceil(instances * QUOTA_FACTOR)) * int(machine["vCPUs"])


def _price(machine: Any) -> str:
    prices = (machine.get("estimatedVMPrices") or {}).get("values") or []
    linux = [one for one in prices if one.get("osType") == "Linux" and one.get("vmTier") == "Standard"]
    if not linux:
        return ""
    currency = machine["estimatedVMPrices"].get("billingCurrency", "USD")
    return f", some {linux[0]['retailPrice']:g} {currency} an hour"


def _allows(permission: Any, action: str) -> bool:
    def covered(patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)

    return covered(permission.get("actions") or []) and not covered(permission.get("notActions") or [])
